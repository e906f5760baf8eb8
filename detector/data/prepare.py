"""Images made ready to train on: from caches, or decoded on demand where a disk has no room."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from detector.base.errors import UserError, size_text
from detector.data.cache import (
    CachedImages,
    DecodedImages,
    Progress,
    cache_folder,
    cache_images,
    decode_on_demand,
    limited,
)
from detector.data.types import ImageSet, UnreadableImage

ANNOUNCED = 1e9
"""Bytes of caches above which they are announced before they are made."""
MARGIN = 0.05
"""Share of their size that must be free beyond it."""


class Part(NamedTuple):
    """Images to be cached."""

    images: ImageSet
    max_side: int | None
    """Long side in px that they are scaled down to; none: as they are."""


def open_or_cache(
    parts: Sequence[Part],
    folder: Path,
    *,
    shared: bool,
    report: Callable[[str], None] = print,
    progress: Progress | None = None,
) -> list[CachedImages | DecodedImages]:
    """The images of each part from its cache, which is made where it is missing.

    Where the disk has no room for the missing caches, their images are decoded whenever they are
    needed: each is decoded once now to find the unreadable ones, and `folder` keeps what was found.

    Args:
        folder: as for `cache_images`.
        shared: whether other processes open the caches by their folders; without room there is an
            error instead.
        report: takes a line for the user on a cache of more than 1 GB, or on too little room.
        progress: called after each image that is decoded, of all that have to be.

    Raises:
        UserError: no room for caches that are shared; as `cache_images`.
    """
    room = room_for(parts, folder)
    if shared:
        room.check()
    if not room.enough:
        report(
            f"note: {room.shortage}; so they are decoded anew in every epoch, which takes "
            f"processor time; to avoid that, {room.remedy}"
        )
    elif room.needed > ANNOUNCED:
        report(f"caching {room.images:,} decoded images, {size_text(room.needed)}, in {folder}")
    opened: list[CachedImages | DecodedImages] = []
    done = 0
    for images, max_side in parts:
        cached = cache_folder(images, folder, max_side).is_dir()
        advance = None if progress is None else _shifted(progress, done, room.images)
        if cached or room.enough:
            opened.append(cache_images(images, folder, max_side, advance))
        else:
            opened.append(decode_on_demand(images, folder, max_side, advance))
        done += 0 if cached else len(images)
    return opened


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the missing caches need of a disk, and what it has."""

    folder: Path
    images: int
    """Without a cache."""
    needed: int
    """Bytes of their pixels; of unreadable ones none."""
    free: int
    """Bytes."""

    remedy = "make room, or give another --runs-dir, a smaller --fraction or a smaller cache_size"

    @property
    def enough(self) -> bool:
        return self.needed * (1 + MARGIN) <= self.free

    @property
    def shortage(self) -> str:
        return (
            f"{self.folder}: a cache of {self.images:,} decoded images needs "
            f"{size_text(self.needed)} and {MARGIN:.0%} to spare, {size_text(self.free)} are "
            "free there"
        )

    def check(self) -> None:
        """UserError where there is not enough."""
        if not self.enough:
            raise UserError(f"{self.shortage}; {self.remedy}")


def room_for(parts: Sequence[Part], folder: Path) -> Room:
    """What those of the parts need that have no cache in `folder`, which may be missing. Sizes are
    those of labels, or read from the files' headers."""
    folder = Path(folder)
    missing = [
        part for part in parts if not cache_folder(part.images, folder, part.max_side).is_dir()
    ]
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    return Room(
        folder=folder,
        images=sum(len(part.images) for part in missing),
        needed=sum(cached_bytes(*part) for part in missing),
        free=shutil.disk_usage(existing).free,
    )


def cached_bytes(images: ImageSet, max_side: int | None) -> int:
    """Bytes of pixels that a cache of these images has; unreadable ones count for nothing."""
    total = 0
    for index, label in enumerate(images.labels):
        try:
            width, height = label.size if label.size[0] else images.size(index)
        except UnreadableImage:
            continue
        width, height = limited((width, height), max_side)
        total += 3 * width * height
    return total


def _shifted(progress: Progress, done: int, total: int) -> Progress:
    """Progress of a part as progress of the whole: `done` images came before it."""
    return lambda images, _: progress(done + images, total)
