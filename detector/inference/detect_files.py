"""Faces in image and video files: JSON and drawn copies come out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import cv2
import torch
from torch import nn

from detector.base.files import atomic_path
from detector.config.detector import Detector
from detector.config.recipe import Evaluation
from detector.data.cache import limit_size
from detector.data.types import UnreadableImage
from detector.inference.drawing import draw, to_plain
from detector.inference.media import (
    DRAWN_IMAGE,
    DRAWN_VIDEO,
    Frame,
    Source,
    Video,
    batched,
    read_pictures,
)
from detector.inference.predict import detect_tta, for_detection
from detector.inference.video_files import UnwritableVideo, atomic_video

MAX_JPEG = 65_500
"""Longest side in px that the JPEG format supports."""


@dataclass
class FileResult:
    """The outcome for one file."""

    source: Source
    faces: int = 0
    frames: int = 0
    """Frames that were processed; 1 for an image."""
    error: str = ""
    """Why the file, or the rest of it, cannot be read."""
    drawing_error: str = ""
    """Why it has no drawn copy, although one was asked for."""
    notes: list[str] = field(default_factory=list)


class FileDetector:
    """Detects faces in files: a detector and its settings."""

    def __init__(
        self,
        model: nn.Module,
        config: Detector | None,
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
            model: `build_detector(config)` with its weights, or what `load_exported` or
                `load_foreign` returned; the latter has no `config`.
            max_size: long side in px to which images are scaled down; None leaves them as they are.
            batch_size: images of one shape in a batch.
            workers: threads that prefetch images.
            fp16: half precision, on a GPU.
        """
        self.device = torch.device(device)
        self.model, self.config = for_detection(model, self.device), config
        self.settings, self.max_size = settings, max_size
        self.batch_size, self.workers, self.fp16 = batch_size, workers, fp16

    def detect(
        self,
        sources: Sequence[Source],
        output: Path,
        visualize: bool = False,
    ) -> Iterator[FileResult]:
        """Writes `<name>.json` and optionally `<name>.drawn.jpg` or `.drawn.mp4` of each file.

        JSON files are written atomically. They contain, in px of the upright image,
        `{"file_name", "width", "height", "annotations": [{"bbox", "score", "landmarks"}]}`; for a
        video `{"file_name", "width", "height", "fps", "frames": [{"index", "annotations"}]}`.
        """
        for is_video, group in groupby(sources, key=lambda source: source.is_video):
            if is_video:
                for source in group:
                    yield self._video(source, output, visualize)
            else:
                yield from self._images(group, output, visualize)

    def _images(
        self,
        sources: Iterable[Source],
        output: Path,
        visualize: bool,
    ) -> Iterator[FileResult]:
        frames = read_pictures(sources, self.max_size, visualize, self.workers)
        for frame, faces in self._faces(frames):
            result = FileResult(frame.source, error=frame.error)
            if faces is not None:
                height, width = frame.size
                result.frames, result.faces = 1, len(faces)
                result.notes = self._scaling_notes(frame)
                _write(
                    _result_path(output, frame.source, ".json"),
                    json.dumps(
                        {
                            "file_name": frame.source.name,
                            "width": width,
                            "height": height,
                            "annotations": faces,
                        }
                    ).encode(),
                )
                if frame.original is not None:
                    drawn = limit_size(draw(frame.original, faces), MAX_JPEG)
                    _, data = cv2.imencode(".jpg", drawn)
                    _write(_result_path(output, frame.source, DRAWN_IMAGE), data.tobytes())
            yield result

    def _video(self, source: Source, output: Path, visualize: bool) -> FileResult:
        result, rows, writer = FileResult(source), [], None
        try:
            with Video(source) as video, contextlib.ExitStack() as stack:
                for frame, faces in self._faces(video.frames(self.max_size, visualize)):
                    faces = faces or []
                    height, width = frame.size
                    rows.append({"index": frame.index, "annotations": faces})
                    result.faces += len(faces)
                    if frame.index == 0:
                        result.notes = self._scaling_notes(frame)
                    if frame.original is not None and not result.drawing_error:
                        try:
                            writer = writer or stack.enter_context(
                                atomic_video(
                                    _result_path(output, source, DRAWN_VIDEO),
                                    video.fps,
                                    (width, height),
                                )
                            )
                        except UnwritableVideo as error:
                            result.drawing_error = f"{source.path}: {error}"
                        else:
                            writer.write(draw(frame.original, faces))
        except UnreadableImage as error:
            result.error = str(error)
            return result
        result.frames = len(rows)
        if len(rows) < video.count:
            if video.is_cut:
                result.error = (
                    f"{source.path}: ends after {len(rows)} of {video.count} frames; those are done"
                )
            else:
                result.notes.append(
                    f"{source.path}: has {len(rows)} frames, though its file says {video.count}"
                )
        _write(
            _result_path(output, source, ".json"),
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
        return result

    def _faces(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, list[dict] | None]]:
        """Each frame with its faces, None if it cannot be read."""
        for batch in batched(frames, self.batch_size):
            images = [frame.resized for frame in batch if frame.resized is not None]
            if not images:
                yield batch[0], None
                continue
            with torch.autocast(self.device.type, torch.float16, enabled=self.fp16):
                detections = detect_tta(self.model, self.config, images, self.settings, self.device)
            for frame, image, own in zip(batch, images, detections):
                yield frame, to_plain(own, image.shape[:2], frame.size)

    def _scaling_notes(self, frame: Frame) -> list[str]:
        """A note if a picture was scaled down because it is too large."""
        if frame.resized is None:
            return []
        (height, width), (low, narrow) = frame.size, frame.resized.shape[:2]
        if (low, narrow) == (height, width) or self.max_size == max(low, narrow):
            return []
        return [f"{frame.source.path}: {width:,}×{height:,} px, scaled down to {narrow:,}×{low:,}"]


def _result_path(output: Path, source: Source, suffix: str) -> Path:
    path = output / f"{source.name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
