"""Sizes, times and checksums of image files, by which images that have changed are noticed.

The fingerprint of a data set knows names, labels and sizes only, so that opening it reads no image.
What a study was started with is stored once; later the files whose size or time differs are read
and compared by their checksums, so a copy of the same images is not mistaken for other ones.
"""

from __future__ import annotations

import io
import logging
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from detector.base.errors import UserError, first_line
from detector.base.files import atomic_path, open_file
from detector.data.prefetch import prefetch_map
from detector.data.sources import file_of
from detector.data.types import ImageSet

CHUNK = 2**20
"""Bytes of a file that are read at a time."""
THREADS = 8
"""Enough to keep a disk busy."""

logger = logging.getLogger(__name__)


def save_contents(path: Path, sets: Sequence[ImageSet]) -> None:
    """Store the sizes, times and checksums of all files of some image sets.

    Raises:
        OSError: the file cannot be written.
    """
    files = _files(sets)
    checksums = list(prefetch_map(_checksum, files.values(), THREADS, ahead=2 * THREADS))
    _write(path, list(files), [_stamp(file) for file in files.values()], checksums)


def changed_files(path: Path, sets: Sequence[ImageSet]) -> list[Path]:
    """The files whose contents differ from those that `save_contents` stored; none if nothing is
    stored, or of images that the file does not list.

    Raises:
        OSError: the file cannot be read or written.
    """
    stored = _read(path)
    if stored is None:
        return []
    names, stamps, checksums = stored
    rows = {name: row for row, name in enumerate(names)}
    files = {rows[name]: file for name, file in _files(sets).items() if name in rows}
    moved = [row for row, file in files.items() if _stamp(file) != tuple(stamps[row])]
    present = prefetch_map(_checksum, [files[row] for row in moved], THREADS, ahead=2 * THREADS)
    changed = [row for row, checksum in zip(moved, present) if checksum != checksums[row]]
    if moved and not changed:  # a copy of the same images: need not be read the next time
        for row in moved:
            stamps[row] = _stamp(files[row])
        with suppress(OSError):  # another user's study: they are read each time
            _write(path, names, stamps, checksums)
    return [files[row] for row in changed]


def check_contents(path: Path, sets: Sequence[ImageSet], study: str, remedy: str) -> None:
    """Check that images have the contents that were stored.

    Args:
        study: that they were stored for, for the message.
        remedy: what the user can do besides restoring them.

    Raises:
        UserError: some have not; names the first.
    """
    changed = changed_files(path, sets)
    if changed:
        raise UserError(
            f"{changed[0]}: has changed since study {study} began, as {len(changed)} of its "
            f"{sum(map(len, sets)):,} images have; restore them, or {remedy}"
        )


def _files(sets: Sequence[ImageSet]) -> dict[str, Path]:
    """The image files by set and name."""
    files = {}
    for number, images in enumerate(sets):
        source = getattr(images, "source", None)
        for label in images.labels:
            file = file_of(source, label.name)
            if file is not None:
                files[f"{number}/{label.name}"] = file
    return files


Stamp = tuple[int, int, int]
"""Bytes, and the times of the last change of contents and of anything, in ns."""


def _stamp(path: Path) -> Stamp:
    try:
        stat = os.stat(path)
    except OSError:  # an unreadable image is left out of the training, as when it was cached
        return -1, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _checksum(path: Path) -> int:
    """CRC-32 of a file; 0 if it cannot be read."""
    checksum = 0
    try:
        with open_file(path) as file:
            while chunk := file.read(CHUNK):
                checksum = zlib.crc32(chunk, checksum)
    except OSError:  # as in `_stamp`
        return 0
    return checksum


def _write(
    path: Path, names: Sequence[str], stamps: Sequence[Stamp], checksums: Sequence[int]
) -> None:
    with atomic_path(path, suffix=".npz", fsync=True) as temporary:
        np.savez(
            temporary,
            names=np.array(names, str),
            stamps=np.array(stamps, np.int64).reshape(-1, 3),
            checksums=np.array(checksums, np.uint32),
        )


def _read(path: Path) -> tuple[list[str], list[Stamp], list[int]] | None:
    """What `_write` stored; None if there is none, or it is damaged, which is logged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(content)) as arrays:
            stamps = [tuple(stamp) for stamp in arrays["stamps"].tolist()]
            return arrays["names"].tolist(), stamps, arrays["checksums"].tolist()
    except Exception as error:  # damaged files raise errors of many kinds
        logger.warning(
            "note: %s is damaged (%s) and is written anew: images that have changed since then are "
            "not noticed",
            path,
            first_line(error),
        )
        path.unlink()
        return None
