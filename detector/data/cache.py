"""Images decoded once into a memory-mapped file that all trials share.

`DecodedImages` are the same images, labels and pixels without that file, decoded on demand.
`detector.data.prepare` chooses between the two.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from detector.base.errors import UserError
from detector.base.files import atomic_path
from detector.data.cache_files import (
    PIXELS,
    DamagedCache,
    discard_damaged,
    pixel_starts,
    read_index,
    read_source_of,
    resize_pixels,
    write_index,
    write_source,
)
from detector.data.prefetch import prefetch_map
from detector.data.sources import read_again
from detector.data.splits import fingerprint
from detector.data.types import ImageLabel, ImageSet, UnreadableImage, why_unreadable

_VERSION = 2
_MAX_THREADS = 16  # more would decode faster than a disk writes
logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of images done and of all."""


class _Index:
    """Labels and sizes of a set's images after each was decoded once; read from a folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        info, labels, arrays = read_index(self.folder)
        self.name: str = info["name"]
        self.fingerprint: str = info["fingerprint"]
        self.skipped: list[str] = info["skipped"]
        """Names of images that could not be decoded; no other field contains them."""
        self.dropped: int = info["dropped"]
        """Number of boxes dropped because they are outside their image."""
        self.max_side: int | None = info.get("max_side")
        self.shapes: list[tuple[int, int]] = [
            (height, width) for height, width in arrays["shapes"].tolist()
        ]
        """(height, width) in px of each image as `image` returns it."""
        self.checksums: np.ndarray | None = arrays.get("checksums")
        """uint32 [N]: CRC-32 of each image's pixels; None in caches of older versions."""
        self.labels: Sequence[ImageLabel] = labels

    def __len__(self) -> int:
        return len(self.labels)

    def size(self, index: int) -> tuple[int, int]:
        return self.labels[index].size


class CachedImages(_Index):
    """An `ImageSet` over a cache folder; pickled as its path.

    Each image is checked when it is first read; a damaged one is decoded again from its source.

    Raises:
        DamagedCache: the labels are damaged, or pixels that cannot be decoded again.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.source = read_source_of(self.folder)
        """Where the images are from; see `detector.data.sources`."""
        self.starts = pixel_starts(np.array(self.shapes))
        """int64 [N + 1]: image i is `pixels[starts[i]:starts[i + 1]]`."""
        self.nbytes = int(self.starts[-1])
        """Bytes of all pixels."""
        self.pixels: np.ndarray = self._map_pixels()
        """uint8 [nbytes], memory-mapped: [H, W, 3] BGR of all images, one after the other."""
        self._checked = np.full(len(self), self.checksums is None)
        self._repaired = 0

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3], BGR: a copy-on-write view of the file.

        Raises:
            DamagedCache: it is damaged, and cannot be decoded again.
        """
        start, end = self.starts[index], self.starts[index + 1]
        image = np.asarray(self.pixels[start:end]).reshape(*self.shapes[index], 3)
        return image if self._checked[index] else self._check(index, image)

    def check_all(self) -> None:
        """Check all images now, for readers of `pixels`."""
        threads = _cores()
        for _ in prefetch_map(self.image, range(len(self)), threads, ahead=2 * threads):
            pass

    def __reduce__(self):
        return CachedImages, (self.folder,)

    def _map_pixels(self) -> np.ndarray:
        path = self.folder / PIXELS
        try:
            size = path.stat().st_size if path.exists() else -1
            if size != self.nbytes:
                if self.checksums is None or self.source is None:
                    raise self._damaged(f"{PIXELS} has {max(size, 0):,} of {self.nbytes:,} bytes")
                resize_pixels(self.folder, self.nbytes)  # the images that it lacked are repaired
            return np.memmap(path, np.uint8, "c") if self.nbytes else np.empty(0, np.uint8)
        except OSError as error:
            raise self._damaged(f"{PIXELS}: {error.strerror}") from error

    def _check(self, index: int, image: np.ndarray) -> np.ndarray:
        """`image` after its first read, repaired in the mapped pixels, too, if it is damaged."""
        assert self.checksums is not None
        if zlib.crc32(image.data) != self.checksums[index]:
            repaired = self._decode_again(index)
            self._repaired += 1
            if self._repaired == 1:
                logger.warning(
                    "note: %s: the pixels of %s were damaged and are decoded again from the image; "
                    "so are any others, without a further note",
                    self.folder,
                    self.labels[index].name,
                )
            if not np.array_equal(image, repaired):  # the file could not be written
                image[:] = repaired  # in this process's copy of the pages
        self._checked[index] = True
        return image

    def _decode_again(self, index: int) -> np.ndarray:
        """The image from its source, written into the file, too. Other processes that notice the
        same damage write the same bytes."""
        name = self.labels[index].name
        if self.source is None:
            raise self._damaged(f"the checksum of image {name} is wrong")
        try:
            image = limit_size(read_again(self.source, name), self.max_side)
        except UnreadableImage as error:
            raise self._damaged(
                f"the checksum of image {name} is wrong, and it cannot be decoded again: {error}"
            ) from error
        if image.shape[:2] != self.shapes[index]:
            raise self._damaged(f"the checksum of image {name} is wrong, and its file has changed")
        image = np.ascontiguousarray(image)
        with suppress(OSError), open(self.folder / PIXELS, "r+b") as pixels:
            pixels.seek(self.starts[index])  # a full or read-only disk: each process decodes it
            pixels.write(image.data)
        return image

    def _damaged(self, reason: str) -> DamagedCache:
        return DamagedCache(
            f"{self.folder}: a damaged cache of decoded images ({reason}); restore the images, "
            "remove the folder, then run the same command again with --resume"
        )


class DecodedImages(_Index):
    """An `ImageSet` equal to a cache, with images decoded on demand.

    All images were decoded once before, so unreadable ones are left out, as in a cache.
    """

    def __init__(self, folder: Path, images: ImageSet, max_side: int | None):
        super().__init__(folder)
        self._images, self._max_side = images, max_side
        indices = {label.name: index for index, label in enumerate(images.labels)}
        self._indices = [indices[label.name] for label in self.labels]

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3], BGR.

        Raises:
            UserError: the file was readable before, but is not any more.
        """
        try:
            return limit_size(self._images.image(self._indices[index]), self._max_side)
        except UnreadableImage as error:
            raise UserError(
                f"{error}; it was readable when this training began: restore it, then "
                "resume with --resume"
            ) from error


def cache_images(
    images: ImageSet,
    folder: Path,
    max_side: int | None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> CachedImages:
    """Decodes the images into a cache on disk, scaled down to a long side of at most `max_side` px.

    An existing cache of the same images and size is opened; a damaged one, or one without
    checksums, is made anew. A cache is written atomically; of two
    concurrent writers, the later one uses the first one's. Unknown sizes are filled in, boxes are
    clipped to their image, unreadable images left out.

    Args:
        folder: contains the caches; created if missing.
        max_side: px; None leaves images as they are.
        progress: called after each image, unless the cache exists.
        threads: to decode with; the cache is the same for any number. None: one for each core that
            this process may use.

    Raises:
        UserError: no image can be decoded, or the folder cannot be written.
    """
    target = cache_folder(images, folder, max_side)
    discard_damaged(target, with_pixels=True)
    if not target.is_dir():
        _build(images, target, max_side, progress, threads, keep_pixels=True)
    write_source(target, getattr(images, "source", None))
    return CachedImages(target)


def decode_on_demand(
    images: ImageSet, folder: Path, max_side: int | None, progress: Progress | None = None
) -> DecodedImages:
    """The images and labels that `cache_images` would return, without a copy of the pixels.

    Each image is decoded once now to find the unreadable ones; the result is stored in `folder`.
    Arguments and errors as for `cache_images`.
    """
    target = Path(folder) / f"index-{_cache_key(images, max_side)}"
    discard_damaged(target, with_pixels=False)
    if not target.is_dir():
        _build(images, target, max_side, progress, keep_pixels=False)
    return DecodedImages(target, images, max_side)


def cache_folder(images: ImageSet, folder: Path, max_side: int | None) -> Path:
    """The folder that `cache_images` creates in `folder`."""
    return Path(folder) / f"images-{_cache_key(images, max_side)}"


def _cache_key(images: ImageSet, max_side: int | None) -> str:
    """Also of what a cache stores, but a set's fingerprint leaves out: landmarks and sizes."""
    parts = [part for label in images.labels for part in (label.landmarks.tobytes(), label.size)]
    return fingerprint("cache", _VERSION, images.fingerprint, max_side, *parts)


def _build(
    images: ImageSet,
    target: Path,
    max_side: int | None,
    progress: Progress | None,
    threads: int | None = None,
    *,
    keep_pixels: bool,
) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_path(target, fsync=True) as temporary:
                temporary.mkdir()
                _write(images, temporary, max_side, progress, threads or _cores(), keep_pixels)
        except OSError:
            if not target.is_dir():  # otherwise another process was first
                raise
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror}); make room, give "
            "another --runs-dir or a smaller cache_size"
        ) from error


def _write(
    images: ImageSet,
    folder: Path,
    max_side: int | None,
    progress: Progress | None,
    threads: int,
    keep_pixels: bool,
) -> None:
    labels: list[ImageLabel] = []
    shapes: list[tuple[int, ...]] = []
    checksums: list[int] = []
    skipped: list[str] = []
    dropped = 0
    with open(folder / PIXELS, "wb") if keep_pixels else nullcontext() as pixels:
        for done, (label, decoded) in enumerate(
            zip(images.labels, _decoded(images, max_side, threads)), 1
        ):
            if decoded is None:
                skipped.append(label.name)
            else:
                clipped, outside = clip_label(label, label.size if label.size[0] else decoded.size)
                labels.append(clipped)
                shapes.append(decoded.image.shape[:2])
                checksums.append(decoded.checksum)
                dropped += outside
                if pixels is not None:
                    pixels.write(decoded.image.data)
            if progress:
                progress(done, len(images))
    if skipped and not labels:
        raise UserError(
            f"{images.name}: none of its {len(skipped)} images can be decoded, the "
            f"first: {why_unreadable(images, skipped[0])}; download or restore them"
        )
    info: dict[str, object] = {
        "name": images.name,
        "fingerprint": _cache_key(images, max_side),
        "skipped": skipped,
        "dropped": dropped,
        "max_side": max_side,
    }
    arrays: dict[str, np.ndarray] = {
        "shapes": np.array(shapes, np.int64).reshape(-1, 2),
        "checksums": np.array(checksums, np.uint32),
    }
    write_index(folder, info, labels, arrays)


class _Decoded(NamedTuple):
    image: np.ndarray
    """uint8 [H, W, 3] BGR, contiguous, scaled down."""
    size: tuple[int, int]
    """(width, height) of the original."""
    checksum: int
    """CRC-32 of `image`."""


def _decoded(images: ImageSet, max_side: int | None, threads: int) -> Iterator[_Decoded | None]:
    """All images in order, None for an unreadable one; at most 2 × `threads` in memory at once."""

    def decode(index: int) -> _Decoded | None:
        try:
            image = images.image(index)
        except UnreadableImage:
            return None
        limited = np.ascontiguousarray(limit_size(image, max_side))
        return _Decoded(limited, (image.shape[1], image.shape[0]), zlib.crc32(limited.data))

    return prefetch_map(decode, range(len(images)), threads, ahead=2 * threads - 1)


def _cores() -> int:
    """Number of threads to decode with: cores that this process may use, at most _MAX_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _MAX_THREADS)


def limit_size(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """The image scaled down to a long side of `max_side` px; smaller images are not changed."""
    size = limited_size((image.shape[1], image.shape[0]), max_side)
    if size == image.shape[1::-1]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def limited_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(width, height) after `limit_size`."""
    if max_side is None or max(size) <= max_side:
        return size
    scale = max_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def clip_label(label: ImageLabel, size: tuple[int, int]) -> tuple[ImageLabel, int]:
    """The label with its image's size and boxes clipped to it, and the number of boxes outside."""
    boxes = label.boxes.copy()
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, size[0])
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, size[1])
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return (
        ImageLabel(label.name, size, boxes[inside], label.landmarks[inside], label.ignore[inside]),
        int((~inside).sum()),
    )
