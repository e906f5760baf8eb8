"""Pictures and videos to find faces in: which files there are, and their frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from detector.base.errors import UserError
from detector.data.cache import limit
from detector.data.types import UnreadableImage
from detector.data.wider import read_image
from detector.inference.tta import MAX_PIXELS

IMAGES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".png",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".avif",
        ".jp2",
    }
)
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})


@dataclass(frozen=True)
class Source:
    path: Path
    name: str
    """Path of its results below the output folder, without their ending; each has its own."""

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture as it is looked at."""

    source: Source
    index: int
    """0 for an image."""
    size: tuple[int, int] = (0, 0)
    """(height, width) of the picture, upright."""
    seen: np.ndarray | None = None
    """uint8 [h, w, 3] BGR: scaled down to what the network sees; none where it cannot be read."""
    image: np.ndarray | None = None
    """uint8 [H, W, 3]: the picture itself, where it is to be drawn on."""
    fault: str = ""
    """Why it cannot be read."""


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Images and videos among `paths` and in the folders among them, with their folders.

    Raises:
        UserError: no such path, a folder without any, or two files whose results have one name.
    """
    found: list[Source] = []
    for path in paths:
        if path.is_dir():
            below = [
                Source(p, p.relative_to(path).as_posix())
                for p in sorted(path.rglob("*"))
                if p.suffix.lower() in IMAGES | VIDEOS and p.is_file()
            ]
            if not below:
                raise UserError(
                    f"{path}: no images or videos in this folder; give another, or "
                    "the files themselves"
                )
            found += below
        elif path.exists():
            found.append(Source(path, path.name))
        else:
            raise UserError(f"{path}: no such file or folder; check the path")
    by_name: dict[str, Path] = {}
    for source in found:
        other = by_name.setdefault(source.name, source.path)
        if other != source.path:
            raise UserError(
                f"{other} and {source.path}: their results would have the same name; "
                "give the folder that both are in"
            )
    return [Source(path, name) for name, path in by_name.items()]


def read_picture(source: Source, max_size: int | None = None, keep: bool = False) -> Frame:
    """An image file, upright as its EXIF says; with the picture itself where it is to be kept."""
    try:
        return _frame(source, 0, read_image(source.path, upright=True), max_size, keep)
    except UnreadableImage as error:
        return Frame(source, 0, fault=str(error))


def read_pictures(
    sources: Iterable[Source], max_size: int | None = None, keep: bool = False, workers: int = 2
) -> Iterator[Frame]:
    """The images in their order, read ahead by `workers` threads; memory holds two each."""
    sources = iter(sources)
    with ThreadPoolExecutor(workers) as pool:

        def ask(count: int) -> list:
            return [
                pool.submit(read_picture, source, max_size, keep)
                for source in islice(sources, count)
            ]

        waiting = ask(2 * workers)
        while waiting:
            yield waiting.pop(0).result()
            waiting += ask(1)


class Video:
    """The frames of a video file; a context manager."""

    def __init__(self, source: Source):
        """Raises `UnreadableImage` for a file without a frame that can be decoded."""
        self.source = source
        self._capture = cv2.VideoCapture(str(source.path))
        self._next, self._image = self._capture.read()
        if not self._next:
            self._capture.release()
            raise UnreadableImage(f"{source.path}: not a readable video")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.count = max(1, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """As the file says; it may hold fewer or more."""

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error) -> None:
        self._capture.release()

    def frames(self, max_size: int | None = None, keep: bool = False) -> Iterator[Frame]:
        index = 0
        while self._next:
            yield _frame(self.source, index, self._image, max_size, keep)
            self._next, self._image = self._capture.read()
            index += 1


def batched(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Neighbours of one shape together, at most `size`; each unreadable one alone."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and (
            len(batch) == size or frame.seen is None or frame.seen.shape != batch[0].seen.shape
        ):
            yield batch
            batch = []
        if frame.seen is None:
            yield [frame]
        else:
            batch.append(frame)
    if batch:
        yield batch


def _frame(
    source: Source, index: int, image: np.ndarray, max_size: int | None, keep: bool
) -> Frame:
    height, width = image.shape[:2]
    most = max_size
    if height * width > MAX_PIXELS:
        fitting = int(max(height, width) * (MAX_PIXELS / (height * width)) ** 0.5)
        most = min(fitting, max_size or fitting)
    return Frame(source, index, (height, width), limit(image, most), image if keep else None)
