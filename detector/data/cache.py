"""Images decoded once into one memory-mapped file that all trials share."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from detector.data.splits import fingerprint
from detector.data.types import ImageLabel, ImageSet, UnreadableImage
from detector.errors import UserError

_VERSION = 1


class CachedImages:
    """An `ImageSet` over a cache folder; pickled as its path alone."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        info = json.loads((self.folder / "index.json").read_text())
        self.name: str = info["name"]
        self.fingerprint: str = info["fingerprint"]
        self.skipped: list[str] = info["skipped"]
        """Names of images that could not be decoded; they are in no other field."""
        self.dropped: int = info["dropped"]
        """Boxes dropped since they lie outside their image."""
        with np.load(self.folder / "labels.npz") as arrays:
            self._shapes = [tuple(shape) for shape in arrays["shapes"].tolist()]
            self.labels: Sequence[ImageLabel] = _unpack(info["names"], arrays)
        lengths = [h * w * 3 for h, w in self._shapes]
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        pixels = self.folder / "pixels.bin"
        self._pixels = (np.memmap(pixels, np.uint8, "c") if pixels.stat().st_size
                        else np.empty(0, np.uint8))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3], BGR: a view of the file; writing to it changes this process's copy."""
        start, end = self._starts[index], self._starts[index + 1]
        return np.asarray(self._pixels[start:end]).reshape(*self._shapes[index], 3)

    def __reduce__(self):
        return CachedImages, (self.folder,)


def cache_images(images: ImageSet, folder: Path, max_side: int | None) -> CachedImages:
    """The images decoded, scaled down to a long side of at most `max_side` px, kept on disk.

    A cache of the same images and size is reopened. It is written aside and then renamed, so a
    reader never sees half of one, and of two writers at once the later one takes the first's.
    Sizes unknown before are filled in, boxes clipped to their image, unreadable images left out.

    Args:
        folder: where caches live; made if missing.
        max_side: px, or none: as they are.

    Raises:
        UserError: no image can be decoded, or the folder cannot be written.
    """
    print_ = fingerprint("cache", _VERSION, images.fingerprint, max_side)
    target = Path(folder) / f"images-{print_}"
    if not target.is_dir():
        try:
            _build(images, target, max_side, print_)
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror}); make room, give "
                            "another --runs-dir or a smaller cache_size") from error
    return CachedImages(target)


def _build(images: ImageSet, target: Path, max_side: int | None, print_: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        _write(images, aside, max_side, print_)
        os.rename(aside, target)
    except OSError:
        if not target.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(images: ImageSet, folder: Path, max_side: int | None, print_: str) -> None:
    labels, shapes, skipped, dropped = [], [], [], 0
    with open(folder / "pixels.bin", "wb") as pixels:
        for index, label in enumerate(images.labels):
            try:
                image = images.image(index)
            except UnreadableImage:
                skipped.append(label.name)
                continue
            size = label.size if label.size[0] else (image.shape[1], image.shape[0])
            fitted, lost = clip_label(label, size)
            image = limit(image, max_side)
            pixels.write(np.ascontiguousarray(image).data)
            labels.append(fitted)
            shapes.append(image.shape[:2])
            dropped += lost
    if skipped and not labels:
        raise UserError(f"{images.name}: none of its {len(skipped)} images can be decoded, the "
                        f"first is {skipped[0]}; fetch them again")
    np.savez(folder / "labels.npz", shapes=np.array(shapes, np.int64).reshape(-1, 2),
             **_pack(labels))
    (folder / "index.json").write_text(json.dumps({
        "name": images.name, "fingerprint": print_, "names": [label.name for label in labels],
        "skipped": skipped, "dropped": dropped}))


def limit(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """The image scaled down to a long side of `max_side` px; smaller ones as they are."""
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image
    scale = max_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def clip_label(label: ImageLabel, size: tuple[int, int]) -> tuple[ImageLabel, int]:
    """The label with its size known and boxes clipped to it; and how many lay outside."""
    boxes = label.boxes.copy()
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, size[0])
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, size[1])
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return (ImageLabel(label.name, size, boxes[kept], label.landmarks[kept], label.ignore[kept]),
            int((~kept).sum()))


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
    ends = np.cumsum(arrays["counts"])[:-1] if len(names) else []
    parts = [np.split(arrays[key], ends) for key in ("boxes", "landmarks", "ignore")]
    sizes = [tuple(size) for size in arrays["sizes"].tolist()]
    return [ImageLabel(*fields) for fields in zip(names, sizes, *parts)]
