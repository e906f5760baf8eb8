"""The files of a cache of decoded images: their checksums, and what is done about damaged ones.

`index.json` holds names and the checksums of itself and of `labels.npz`; that one holds labels,
sizes and the checksum of each image; `pixels.bin` holds all pixels. `source.json` says where the
images can be decoded again.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import shutil
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.base.errors import UserError, first_line
from detector.base.files import write_text
from detector.base.json_file import read_json
from detector.data.types import ImageLabel

INDEX, LABELS, PIXELS, SOURCE = "index.json", "labels.npz", "pixels.bin", "source.json"
LOCK = ".lock"
"""In the folder of the caches; held while a damaged one is removed."""
SAMPLED = 8
"""Images that are checked when a cache is opened; the others are when they are first read."""

logger = logging.getLogger(__name__)


class DamagedCache(UserError):
    """A cache that cannot be opened; whoever has its images makes it anew."""


def write_index(
    folder: Path, info: dict, labels: Sequence[ImageLabel], arrays: dict[str, np.ndarray]
) -> None:
    """Writes index.json and labels.npz.

    Args:
        info: plain data.
        arrays: `shapes` int64 [N, 2] and `checksums` uint32 [N].
    """
    everything: dict[str, Any] = arrays | _pack(labels)
    np.savez(folder / LABELS, **everything)
    info = info | {"names": [label.name for label in labels]}
    info = info | {"labels_checksum": zlib.crc32((folder / LABELS).read_bytes())}
    info["checksum"] = _checksum(info)
    (folder / INDEX).write_text(json.dumps(info), encoding="utf-8")


def read_index(folder: Path) -> tuple[dict, list[ImageLabel], dict[str, np.ndarray]]:
    """What `write_index` wrote; that of older versions has no checksums.

    Raises:
        DamagedCache: a file is damaged or missing.
    """
    try:
        info = read_json(folder / INDEX)
        labels = (folder / LABELS).read_bytes()
        if "checksum" in info:
            if info.pop("checksum") != _checksum(info):
                raise ValueError(f"the checksum of {INDEX} is wrong")
            if info["labels_checksum"] != zlib.crc32(labels):
                raise ValueError(f"the checksum of {LABELS} is wrong")
        with np.load(io.BytesIO(labels)) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return info, _unpack(info["names"], arrays), arrays
    except Exception as error:  # damaged files raise errors of many kinds
        raise DamagedCache(
            f"{folder}: a damaged cache of decoded images ({first_line(error)}); remove the "
            "folder, then run the same command again with --resume"
        ) from error


def pixel_starts(shapes: np.ndarray) -> np.ndarray:
    """int64 [N + 1]: where each image begins in pixels.bin, and the end; `shapes` [N, 2]."""
    lengths = np.asarray(shapes, np.int64).reshape(-1, 2).prod(axis=1) * 3
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def damage(folder: Path, *, with_pixels: bool) -> str | None:
    """Why a cache must be made anew; None if it seems intact."""
    try:
        info, labels, arrays = read_index(folder)
    except DamagedCache as error:
        return str(error.__cause__)
    if "labels_checksum" not in info:
        return "it has no checksums, as those of older versions"
    if not with_pixels:
        return None
    starts, pixels = pixel_starts(arrays["shapes"]), folder / PIXELS
    size = pixels.stat().st_size if pixels.is_file() else -1
    if size != starts[-1]:
        return f"{PIXELS} has {max(size, 0):,} of {starts[-1]:,} bytes"
    with open(pixels, "rb") as file:
        for index in np.linspace(0, len(starts) - 2, SAMPLED).astype(int) if size else ():
            file.seek(starts[index])
            content = file.read(starts[index + 1] - starts[index])
            if zlib.crc32(content) != arrays["checksums"][index]:
                return f"the checksum of image {labels[index].name} is wrong"
    return None


def discard_damaged(folder: Path, *, with_pixels: bool) -> None:
    """Removes a damaged cache, so that it is made anew, and logs a line. Safe if several processes
    notice at once."""
    if not folder.is_dir() or damage(folder, with_pixels=with_pixels) is None:
        return
    try:
        with open(folder.parent / LOCK, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            reason = damage(folder, with_pixels=with_pixels) if folder.is_dir() else None
            if reason is None:  # another process was first
                return
            aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.damaged")
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{folder}: a damaged cache of decoded images that cannot be removed "
            f"({error.strerror}); remove it"
        ) from error
    logger.warning("note: %s: %s; the images are decoded again", folder, reason)


def write_source(folder: Path, source: dict | None) -> None:
    """Notes where the images of a cache come from, unless that is known; see `data.sources`."""
    if source is not None and read_source_of(folder) != source:
        write_text(folder / SOURCE, json.dumps(source) + "\n")


def read_source_of(folder: Path) -> dict | None:
    """What `write_source` wrote; None if that is unknown."""
    try:
        source = read_json(folder / SOURCE)
    except (OSError, ValueError):  # missing or damaged
        return None
    return source if isinstance(source, dict) else None


def resize_pixels(folder: Path, size: int) -> None:
    """Gives pixels.bin the size that it should have, in bytes; checksums then find what is lost."""
    descriptor = os.open(folder / PIXELS, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _checksum(info: dict) -> int:
    return zlib.crc32(json.dumps(info).encode())


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


def _unpack(names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> list[ImageLabel]:
    ends = np.cumsum(arrays["counts"])[:-1].tolist()
    parts = [np.split(arrays[key], ends) for key in ("boxes", "landmarks", "ignore")]
    sizes = [tuple(size) for size in arrays["sizes"].tolist()]
    return [ImageLabel(*fields) for fields in zip(names, sizes, *parts)]
