"""Seeded random subsets, stratified by event and independent of the order of images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from detector.data.types import ImageLabel, ImageSet, event_of


def stratified(names: Sequence[str], share: float, seed: int, purpose: str) -> list[bool]:
    """A stratified random sample: for each name whether it is drawn, about `share` of each event.

    Whether a name is drawn depends on the set of names, not on their order. Of an event with two or
    more images at least one is drawn and one is not. Different purposes draw independently.

    Args:
        names: `<event>/<file>`, without duplicates; those without a folder are of one event.
        share: in (0, 1); 1 draws all.
    """
    if share >= 1:
        return [True] * len(names)
    events: dict[str, list[str]] = defaultdict(list)
    for name in names:
        events[event_of(name)].append(name)
    drawn: set[str] = set()
    total = 0
    for event in sorted(events):
        members = sorted(events[event], key=lambda name: _key(name, seed, purpose))
        # Rounding the running total keeps the rounding errors of small events from adding up.
        count = _round(share * (total + len(members))) - _round(share * total)
        total += len(members)
        if len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        drawn.update(members[:count])
    return [name in drawn for name in names]


def _round(value: float) -> int:
    return int(value + 0.5)


def _key(name: str, seed: int, purpose: str) -> bytes:
    return hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()


def fingerprint(*parts: object) -> str:
    """12 hex digits of a hash of the parts: of bytes, or of the text of anything else."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else str(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def label_bytes(labels: Sequence[ImageLabel]) -> bytes:
    """Names and labels as bytes, for the fingerprint of a set. Studies record it, so it stays as it
    is: without the places of landmarks, and sizes."""
    return b"".join(
        part
        for label in labels
        for part in (
            label.name.encode(),
            label.boxes.tobytes(),
            label.ignore.tobytes(),
            np.isnan(label.landmarks).tobytes(),
        )
    )


class Subset:
    """Some images of another set."""

    def __init__(self, images: ImageSet, indices: Sequence[int], name: str):
        self.name = name
        self.labels: Sequence[ImageLabel] = [images.labels[i] for i in indices]
        self.fingerprint = fingerprint(images.fingerprint, *(label.name for label in self.labels))
        self.source: dict | None = getattr(images, "source", None)
        self._images, self._indices = images, list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> np.ndarray:
        return self._images.image(self._indices[index])

    def size(self, index: int) -> tuple[int, int]:
        return self._images.size(self._indices[index])
