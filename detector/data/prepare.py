"""Images ready to train on: cached, or decoded on demand if the disk has no space."""

from __future__ import annotations

import logging
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
    limited_size,
)
from detector.data.cache_files import discard_damaged
from detector.data.types import ImageSet, UnreadableImage

logger = logging.getLogger(__name__)

ANNOUNCED = 1e9
"""Larger caches (bytes) are announced before they are written."""
MARGIN = 0.05
"""Share of the caches' size that must remain free."""


class Part(NamedTuple):
    """Images to be cached."""

    images: ImageSet
    max_side: int | None
    """Long side in px to which they are scaled down; None leaves them as they are."""


def open_or_cache(
    parts: Sequence[Part],
    folder: Path,
    *,
    shared: bool,
    report: Callable[[str], None] = logger.info,
    progress: Progress | None = None,
) -> list[CachedImages | DecodedImages]:
    """The images of each part, from its cache, which is written if it is missing.

    If the disk has no room for the missing caches, their images are decoded on demand
    (`decode_on_demand`).

    Args:
        folder: as for `cache_images`.
        shared: whether other processes open the caches by their folders; then too little room is
            an error.
        report: receives a line for the user about caches of more than 1 GB, or too little space.
        progress: called after each image that is decoded, counted over all parts.

    Raises:
        UserError: no room for shared caches; as `cache_images`.
    """
    for images, max_side in parts:
        discard_damaged(cache_folder(images, folder, max_side), with_pixels=True)
    space = space_for_caches(parts, folder)
    if shared:
        space.check()
    if not space.enough:
        report(
            f"note: {space.shortage}; so they are decoded again in every epoch, which takes "
            f"processor time; to avoid that, {space.remedy}"
        )
    elif space.needed > ANNOUNCED:
        report(f"caching {space.images:,} decoded images, {size_text(space.needed)}, in {folder}")
    opened: list[CachedImages | DecodedImages] = []
    done = 0
    for images, max_side in parts:
        cached = cache_folder(images, folder, max_side).is_dir()
        advance = None if progress is None else _shifted(progress, done, space.images)
        if cached or space.enough:
            opened.append(cache_images(images, folder, max_side, advance))
        else:
            opened.append(decode_on_demand(images, folder, max_side, advance))
        done += 0 if cached else len(images)
    return opened


@dataclass(frozen=True, kw_only=True)
class CacheSpace:
    """Disk space that the missing caches need, and the free space."""

    folder: Path
    images: int
    """Number of images without a cache."""
    needed: int
    """Bytes of their pixels, without unreadable images."""
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
        """UserError if there is not enough."""
        if not self.enough:
            raise UserError(f"{self.shortage}; {self.remedy}")


def space_for_caches(parts: Sequence[Part], folder: Path) -> CacheSpace:
    """Disk space for the parts without a cache in `folder`, which may be missing. Sizes of images
    come from the labels or from the files' headers."""
    folder = Path(folder)
    missing = [
        part for part in parts if not cache_folder(part.images, folder, part.max_side).is_dir()
    ]
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    return CacheSpace(
        folder=folder,
        images=sum(len(part.images) for part in missing),
        needed=sum(cached_bytes(*part) for part in missing),
        free=shutil.disk_usage(existing).free,
    )


def cached_bytes(images: ImageSet, max_side: int | None) -> int:
    """Bytes of the pixels in a cache of these images, without unreadable ones."""
    total = 0
    for index, label in enumerate(images.labels):
        try:
            width, height = label.size if label.size[0] else images.size(index)
        except UnreadableImage:
            continue
        width, height = limited_size((width, height), max_side)
        total += 3 * width * height
    return total


def _shifted(progress: Progress, done: int, total: int) -> Progress:
    """The progress of a part as progress of all: `done` images came before it."""
    return lambda images, _: progress(done + images, total)
