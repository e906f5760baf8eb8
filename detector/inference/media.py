"""Image and video files: which ones a command line names, and their frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from detector.base import files
from detector.base.errors import UserError
from detector.base.listing import list_files
from detector.data.cache import limit_size
from detector.data.image_files import read_image
from detector.data.prefetch import prefetch_map
from detector.data.types import UnreadableImage
from detector.inference.tta import MAX_PIXELS
from detector.inference.video_files import is_cut, open_video

IMAGES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".avif",
        ".jp2",
        ".gif",
    }
)
"""Of a GIF, the first picture counts."""
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
DRAWN_IMAGE, DRAWN_VIDEO = ".drawn.jpg", ".drawn.mp4"
"""What the names of drawn copies end in, after the whole name of their original."""


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


def find_sources(
    paths: Sequence[Path],
    notes: list[str] | None = None,
    unreadable: list[str] | None = None,
) -> list[Source]:
    """Images and videos among `paths` and below the folders among them.

    Args:
        notes: a line is appended about files in folders that are left out: those that are neither
            images nor videos by their names, and drawn copies of an earlier run.
        unreadable: a line is appended for each folder below that cannot be listed.

    Raises:
        UserError: no such path, a folder without any, or two files whose results would have the
            same name.
    """
    sources: list[Source] = []
    for path in paths:
        if files.is_folder(path):
            sources += _sources_below(
                path, [] if notes is None else notes, [] if unreadable is None else unreadable
            )
        elif files.exists(path):
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


def _sources_below(folder: Path, notes: list[str], unreadable: list[str]) -> list[Source]:
    listing = list_files(folder)
    if "" in listing.closed:
        raise files.cannot_read(folder, listing.closed[""], "give another folder")
    unreadable += [str(files.cannot_read(folder / p, e, "")) for p, e in listing.closed.items()]
    names = sorted(filter(_is_media, listing.files), key=lambda name: name.split("/"))
    drawn = {name for name in names if _is_drawn(name, listing.files)}
    others = Counter(
        PurePosixPath(name).suffix.lower()
        for name in listing.files
        if not (
            _is_media(name)
            or _is_media(name.removesuffix(".json"))  # results of an earlier run
            or name.rpartition("/")[2].startswith(".")
        )
    )
    if others:
        kinds = ", ".join(f"{suffix or 'no suffix'} ({n})" for suffix, n in others.most_common(5))
        notes.append(
            f"{folder}: {sum(others.values())} files skipped, as their names are not those of "
            f"images or videos that are read: {kinds}{', …' * (len(others) > 5)}"
        )
    if drawn:
        notes.append(
            f"{folder}: {len(drawn)} files skipped, as they are drawn copies of an earlier run "
            f"(*{DRAWN_IMAGE}, *{DRAWN_VIDEO})"
        )
    if len(drawn) == len(names):
        raise UserError(
            f"{folder}: no images or videos in this folder"
            + "".join(f" ({note.removeprefix(f'{folder}: ')})" for note in notes[-1:])
            + "; give another one, or the files themselves"
        )
    return [Source(folder / name, name) for name in names if name not in drawn]


def _is_drawn(name: str, names: Container[str]) -> bool:
    """Whether a file is a drawn copy: of an image or video, or beside the results of one."""
    for suffix in (DRAWN_IMAGE, DRAWN_VIDEO):
        if name.endswith(suffix):
            original = name.removesuffix(suffix)
            return _is_media(original) or f"{original}.json" in names
    return False


def _is_media(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGES | VIDEOS


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
        try:
            self.is_cut = is_cut(source.path)
            self._capture = open_video(source.path)
        except OSError as error:
            raise UnreadableImage(f"{source.path}: {files.reason(error)}") from error
        self._has_next, self._image = self._capture.read()
        if not self._has_next:
            self._capture.release()
            raise UnreadableImage(f"{source.path}: not a readable video")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.count = max(1, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """Frames according to the file; there may be more, or fewer even if it is not cut short."""

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
