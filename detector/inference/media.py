"""Image and video files: which ones a command line names, and their frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detector.base.errors import UserError
from detector.data.cache import limit_size
from detector.data.prefetch import prefetch_map
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
    """Path of its results below the output folder, without suffix; unique."""

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True, eq=False)
class Frame:
    """An image or a frame of a video, ready for detection."""

    source: Source
    index: int
    """0 for an image."""
    size: tuple[int, int] = (0, 0)
    """(height, width) of the original, upright."""
    resized: np.ndarray | None = None
    """uint8 [h, w, 3] BGR, scaled down to at most `max_size`; None if it cannot be read."""
    original: np.ndarray | None = None
    """uint8 [H, W, 3] BGR, if it is needed to draw on."""
    error: str = ""
    """Why it cannot be read."""


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Images and videos among `paths` and below the folders among them.

    Raises:
        UserError: no such path, a folder without any, or two files whose results would have the
            same name.
    """
    sources: list[Source] = []
    for path in paths:
        if path.is_dir():
            below = [
                Source(p, p.relative_to(path).as_posix())
                for p in sorted(path.rglob("*"))
                if p.suffix.lower() in IMAGES | VIDEOS and p.is_file()
            ]
            if not below:
                raise UserError(
                    f"{path}: no images or videos in this folder; give another one, or "
                    "the files themselves"
                )
            sources += below
        elif path.exists():
            sources.append(Source(path, path.name))
        else:
            raise UserError(f"{path}: no such file or folder; check the path")
    by_name: dict[str, Path] = {}
    for source in sources:
        other = by_name.setdefault(source.name, source.path)
        if other != source.path:
            raise UserError(
                f"{other} and {source.path}: their results would have the same name; "
                "give a folder that contains both"
            )
    return [Source(path, name) for name, path in by_name.items()]


def read_picture(source: Source, max_size: int | None = None, keep: bool = False) -> Frame:
    """Reads an image file, rotated upright by its EXIF orientation.

    Args:
        keep: whether the frame keeps the original.
    """
    try:
        return _frame(source, 0, read_image(source.path, upright=True), max_size, keep)
    except UnreadableImage as error:
        return Frame(source, 0, error=str(error))


def read_pictures(
    sources: Iterable[Source], max_size: int | None = None, keep: bool = False, workers: int = 2
) -> Iterator[Frame]:
    """The images in order, prefetched by `workers` threads, two for each."""
    return prefetch_map(
        lambda source: read_picture(source, max_size, keep), sources, workers, ahead=2 * workers - 1
    )


class Video:
    """The frames of a video file; a context manager."""

    def __init__(self, source: Source):
        """Raises `UnreadableImage` if no frame can be decoded."""
        self.source = source
        self._capture = cv2.VideoCapture(str(source.path))
        self._has_next, self._image = self._capture.read()
        if not self._has_next:
            self._capture.release()
            raise UnreadableImage(f"{source.path}: not a readable video")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.count = max(1, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """Frames according to the file, which may have more or fewer."""

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error) -> None:
        self._capture.release()

    def frames(self, max_size: int | None = None, keep: bool = False) -> Iterator[Frame]:
        index = 0
        while self._has_next:
            yield _frame(self.source, index, self._image, max_size, keep)
            self._has_next, self._image = self._capture.read()
            index += 1


def batched(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Batches of at most `size` consecutive frames of one shape; unreadable ones separately."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and (len(batch) == size or _shape(frame) != _shape(batch[0])):
            yield batch
            batch = []
        if frame.resized is None:
            yield [frame]
        else:
            batch.append(frame)
    if batch:
        yield batch


def _shape(frame: Frame) -> tuple[int, ...] | None:
    return None if frame.resized is None else frame.resized.shape


def _frame(
    source: Source, index: int, image: np.ndarray, max_size: int | None, keep: bool
) -> Frame:
    height, width = image.shape[:2]
    if height * width > MAX_PIXELS:
        side = int(max(height, width) * (MAX_PIXELS / (height * width)) ** 0.5)
        max_size = min(side, max_size or side)
    resized = limit_size(image, max_size)
    return Frame(source, index, (height, width), resized, image if keep else None)
