"""Seeded draws of images, stratified by event and independent of their order."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from detector.data.types import ImageLabel, ImageSet


def stratified(names: Sequence[str], share: float, seed: int, purpose: str) -> list[bool]:
    """Which of `names` are drawn: about `share` of them, of every event its part.

    Whether a name is drawn depends on the set of names, not on their order. An event of two or
    more images has at least one drawn and one left. Draws of different `purpose` are independent.

    Args:
        names: `<event>/<file>`, all different.
        share: in (0, 1); 1 draws all.
    """
    if share >= 1:
        return [True] * len(names)
    events: dict[str, list[str]] = defaultdict(list)
    for name in names:
        events[name.split("/")[0]].append(name)
    drawn: set[str] = set()
    seen = 0
    for event in sorted(events):
        members = sorted(events[event], key=lambda name: _key(name, seed, purpose))
        # rounding the running total, so that many small events do not add up their remainders
        count = _round(share * (seen + len(members))) - _round(share * seen)
        seen += len(members)
        if len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        drawn.update(members[:count])
    return [name in drawn for name in names]


def _round(value: float) -> int:
    return int(value + 0.5)


def _key(name: str, seed: int, purpose: str) -> bytes:
    return hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()


def fingerprint(*parts: object) -> str:
    """12 hex digits over the text of the parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else str(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def label_bytes(labels: Sequence[ImageLabel]) -> bytes:
    """Names and annotations as bytes, to make a fingerprint of."""
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
        self.labels = [images.labels[i] for i in indices]
        self.fingerprint = fingerprint(images.fingerprint, *(label.name for label in self.labels))
        self._images, self._indices = images, list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> np.ndarray:
        return self._images.image(self._indices[index])

    def size(self, index: int) -> tuple[int, int]:
        return self._images.size(self._indices[index])
