"""Faces in files: pictures and videos in, JSON and drawn copies out, a file at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import cv2
import torch
from torch import nn

from detector.config.detector import Detector
from detector.config.recipe import Evaluation
from detector.data.cache import limit
from detector.data.types import UnreadableImage
from detector.inference.drawing import draw, to_plain
from detector.inference.media import Frame, Source, Video, batched, read_pictures
from detector.inference.predict import detect_views

MAX_JPEG = 65_500
"""Longest side in px that the format has room for."""


@dataclass
class Found:
    """What became of one file."""

    source: Source
    faces: int = 0
    frames: int = 0
    """Pictures that were looked at; 1 for an image."""
    fault: str = ""
    """Why it cannot be read."""
    notes: list[str] = field(default_factory=list)


class Finder:
    """A detector with all that tells how to look."""

    def __init__(
        self,
        model: nn.Module,
        config: Detector,
        settings: Evaluation,
        *,
        device: torch.device | str = "cpu",
        max_size: int | None = None,
        batch_size: int = 1,
        workers: int = 2,
        fp16: bool = False,
    ):
        """
        Args:
            model: `build_detector(config)` with its weights, or what `load_exported` made.
            max_size: long side in px to which pictures are scaled down; none: as they are.
            batch_size: pictures of one shape taken at once.
            workers: threads that read images ahead.
            fp16: half precision; on a GPU.
        """
        self.device = torch.device(device)
        self.model, self.config = model.to(self.device).eval(), config
        self.settings, self.max_size = settings, max_size
        self.batch_size, self.workers, self.fp16 = batch_size, workers, fp16

    def find(
        self,
        sources: Sequence[Source],
        output: Path,
        visualize: bool = False,
    ) -> Iterator[Found]:
        """Writes `<name>.json` and, on demand, `<name>.drawn.jpg` or `.drawn.mp4` of each file.

        A file's JSON is written whole or not at all. It is, in px of the upright picture,
        `{"file_name", "width", "height", "annotations": [{"bbox", "score", "landmarks"}]}`; of a
        video `{"file_name", "width", "height", "fps", "frames": [{"index", "annotations"}]}`.
        """
        for is_video, group in groupby(sources, key=lambda source: source.is_video):
            if is_video:
                for source in group:
                    yield self._video(source, output, visualize)
            else:
                yield from self._pictures(group, output, visualize)

    def _pictures(
        self,
        sources: Iterable[Source],
        output: Path,
        visualize: bool,
    ) -> Iterator[Found]:
        frames = read_pictures(sources, self.max_size, visualize, self.workers)
        for frame, faces in self._faces(frames):
            found = Found(frame.source, fault=frame.fault)
            if frame.seen is not None:
                height, width = frame.size
                found.frames, found.faces = 1, len(faces)
                found.notes = self._scaled(frame)
                _write(
                    _place(output, frame.source, ".json"),
                    json.dumps(
                        {
                            "file_name": frame.source.name,
                            "width": width,
                            "height": height,
                            "annotations": faces,
                        }
                    ).encode(),
                )
                if visualize:
                    drawn = limit(draw(frame.image, faces), MAX_JPEG)
                    _, data = cv2.imencode(".jpg", drawn)
                    _write(_place(output, frame.source, ".drawn.jpg"), data.tobytes())
            yield found

    def _video(self, source: Source, output: Path, visualize: bool) -> Found:
        found, rows, writer = Found(source), [], None
        try:
            with Video(source) as video, contextlib.ExitStack() as closing:
                for frame, faces in self._faces(video.frames(self.max_size, visualize)):
                    height, width = frame.size
                    rows.append({"index": frame.index, "annotations": faces})
                    found.faces += len(faces)
                    if frame.index == 0:
                        found.notes = self._scaled(frame)
                    if visualize:
                        if writer is None:
                            target = _place(output, source, ".drawn.mp4")
                            writer = cv2.VideoWriter(
                                str(target),
                                cv2.VideoWriter_fourcc(*"mp4v"),
                                video.fps,
                                (width, height),
                            )
                            closing.callback(writer.release)
                            if not writer.isOpened():
                                raise OSError(0, f"OpenCV cannot write {target}")
                        writer.write(draw(frame.image, faces))
        except UnreadableImage as error:
            found.fault = str(error)
            return found
        found.frames = len(rows)
        if len(rows) < video.count:
            found.fault = (
                f"{source.path}: ends after {len(rows)} of {video.count} frames; those are done"
            )
        _write(
            _place(output, source, ".json"),
            json.dumps(
                {
                    "file_name": source.name,
                    "width": width,
                    "height": height,
                    "fps": video.fps,
                    "frames": rows,
                }
            ).encode(),
        )
        return found

    def _faces(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, list[dict]]]:
        for batch in batched(frames, self.batch_size):
            if batch[0].seen is None:
                yield batch[0], []
                continue
            with torch.autocast(self.device.type, torch.float16, enabled=self.fp16):
                found = detect_views(
                    self.model, self.config, [f.seen for f in batch], self.settings, self.device
                )
            for frame, detections in zip(batch, found):
                yield frame, to_plain(detections, frame.seen.shape[:2], frame.size)

    def _scaled(self, frame: Frame) -> list[str]:
        """A note where a picture is too large to be looked at as it is."""
        (height, width), (low, narrow) = frame.size, frame.seen.shape[:2]
        if (low, narrow) == (height, width) or self.max_size == max(low, narrow):
            return []
        return [f"{frame.source.path}: {width:,}×{height:,} px, looked at in {narrow:,}×{low:,}"]


def _place(output: Path, source: Source, ending: str) -> Path:
    path = output / f"{source.name}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    os.replace(aside, path)
