"""Images decoded once into a memory-mapped file that all trials share.

`DecodedImages` are the same images, labels and pixels without that file, decoded on demand.
`detector.data.prepare` chooses between the two.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from detector.base.errors import UserError
from detector.base.files import atomic_path
from detector.data.prefetch import prefetch_map
from detector.data.splits import fingerprint
from detector.data.types import ImageLabel, ImageSet, UnreadableImage

_VERSION = 1
_MAX_THREADS = 16  # more would decode faster than a disk writes
_INDEX, _LABELS, _PIXELS = "index.json", "labels.npz", "pixels.bin"
Progress = Callable[[int, int], None]
"""Called with the number of images done and of all."""


class _Index:
    """Labels and sizes of a set's images after each was decoded once; read from a folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        info = json.loads((self.folder / _INDEX).read_text())
        self.name: str = info["name"]
        self.fingerprint: str = info["fingerprint"]
        self.skipped: list[str] = info["skipped"]
        """Names of images that could not be decoded; no other field contains them."""
        self.dropped: int = info["dropped"]
        """Number of boxes dropped because they are outside their image."""
        with np.load(self.folder / _LABELS) as arrays:
            self.shapes: list[tuple[int, int]] = [
                (height, width) for height, width in arrays["shapes"].tolist()
            ]
            """(height, width) in px of each image as `image` returns it."""
            self.labels: Sequence[ImageLabel] = _unpack(info["names"], arrays)

    def __len__(self) -> int:
        return len(self.labels)

    def size(self, index: int) -> tuple[int, int]:
        return self.labels[index].size


class CachedImages(_Index):
    """An `ImageSet` over a cache folder; pickled as its path."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        lengths = np.array([height * width * 3 for height, width in self.shapes], np.int64)
        self.starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        """int64 [N + 1]: image i is `pixels[starts[i]:starts[i + 1]]`."""
        self.nbytes = int(self.starts[-1])
        """Bytes of all pixels."""
        pixels = self.folder / _PIXELS
        self.pixels: np.ndarray = (
            np.memmap(pixels, np.uint8, "c") if pixels.stat().st_size else np.empty(0, np.uint8)
        )
        """uint8 [nbytes], memory-mapped: [H, W, 3] BGR of all images, one after the other."""

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3], BGR: a copy-on-write view of the file."""
        start, end = self.starts[index], self.starts[index + 1]
        return np.asarray(self.pixels[start:end]).reshape(*self.shapes[index], 3)

    def __reduce__(self):
        return CachedImages, (self.folder,)


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

    An existing cache of the same images and size is opened. A cache is written atomically; of two
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
    if not target.is_dir():
        _build(images, target, max_side, progress, threads, keep_pixels=True)
    return CachedImages(target)


def decode_on_demand(
    images: ImageSet, folder: Path, max_side: int | None, progress: Progress | None = None
) -> DecodedImages:
    """The images and labels that `cache_images` would return, without a copy of the pixels.

    Each image is decoded once now to find the unreadable ones; the result is stored in `folder`.
    Arguments and errors as for `cache_images`.
    """
    target = Path(folder) / f"index-{_cache_key(images, max_side)}"
    if not target.is_dir():
        _build(images, target, max_side, progress, keep_pixels=False)
    return DecodedImages(target, images, max_side)


def cache_folder(images: ImageSet, folder: Path, max_side: int | None) -> Path:
    """The folder that `cache_images` creates in `folder`."""
    return Path(folder) / f"images-{_cache_key(images, max_side)}"


def _cache_key(images: ImageSet, max_side: int | None) -> str:
    return fingerprint("cache", _VERSION, images.fingerprint, max_side)


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
            with atomic_path(target) as temporary:
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
    skipped: list[str] = []
    dropped = 0
    with open(folder / _PIXELS, "wb") if keep_pixels else nullcontext() as pixels:
        for done, (label, decoded) in enumerate(
            zip(images.labels, _decoded(images, max_side, threads)), 1
        ):
            if decoded is None:
                skipped.append(label.name)
            else:
                clipped, outside = clip_label(label, label.size if label.size[0] else decoded.size)
                labels.append(clipped)
                shapes.append(decoded.image.shape[:2])
                dropped += outside
                if pixels is not None:
                    pixels.write(decoded.image.data)
            if progress:
                progress(done, len(images))
    if skipped and not labels:
        raise UserError(
            f"{images.name}: none of its {len(skipped)} images can be decoded, the "
            f"first is {skipped[0]}; download them again"
        )
    arrays = {"shapes": np.array(shapes, np.int64).reshape(-1, 2)} | _pack(labels)
    np.savez(folder / _LABELS, **arrays)
    (folder / _INDEX).write_text(
        json.dumps(
            {
                "name": images.name,
                "fingerprint": _cache_key(images, max_side),
                "names": [label.name for label in labels],
                "skipped": skipped,
                "dropped": dropped,
            }
        )
    )


class _Decoded(NamedTuple):
    image: np.ndarray
    """uint8 [H, W, 3] BGR, contiguous, scaled down."""
    size: tuple[int, int]
    """(width, height) of the original."""


def _decoded(images: ImageSet, max_side: int | None, threads: int) -> Iterator[_Decoded | None]:
    """All images in order, None for an unreadable one; at most 2 × `threads` in memory at once."""

    def decode(index: int) -> _Decoded | None:
        try:
            image = images.image(index)
        except UnreadableImage:
            return None
        return _Decoded(
            np.ascontiguousarray(limit_size(image, max_side)), (image.shape[1], image.shape[0])
        )

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


def _pack(labels: Sequence[ImageLabel]) -> dict[str, np.ndarray]:
    def join(arrays, shape, dtype):
        return np.concatenate([np.empty(shape, dtype), *arrays])

    return {
        "sizes": np.array([label.size for label in labels], np.int64).reshape(-1, 2),
        "counts": np.array([len(label.boxes) for label in labels], np.int64),
        "boxes": join([label.boxes for label in labels], (0, 4), np.float32),
        "landmarks": join([label.landmarks for label in labels], (0, 5, 2), np.float32),
        "ignore": join([label.ignore for label in labels], 0, bool),
    }


def _unpack(names: Sequence[str], arrays) -> list[ImageLabel]:
    ends = np.cumsum(arrays["counts"])[:-1].tolist()
    parts = [np.split(arrays[key], ends) for key in ("boxes", "landmarks", "ignore")]
    sizes = [tuple(size) for size in arrays["sizes"].tolist()]
    return [ImageLabel(*fields) for fields in zip(names, sizes, *parts)]
