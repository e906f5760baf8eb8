"""The one type that all data sets, caches and evaluators share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class ImageLabel:
    """The truth of one image, in pixels of the original image."""

    name: str
    """`<event>/<file name>`, unique in a set."""
    size: tuple[int, int]
    """(width, height) of the original image; (0, 0) where not known before it is read."""
    boxes: np.ndarray
    """float32 [N, 4]: x1, y1, x2, y2. N may be 0."""
    landmarks: np.ndarray
    """float32 [N, 5, 2]: left eye, right eye, nose, left and right mouth corner as seen in the
    image; NaN where unknown."""
    ignore: np.ndarray
    """bool [N]: neither learnt nor counted as a miss."""

    @property
    def event(self) -> str:
        return self.name.split("/")[0]


class ImageSet(Protocol):
    """Labelled images, indexable and reproducible: the same index gives the same pixels."""

    name: str
    """Shown to the user: "WIDER train", "synthetic val" …"""
    fingerprint: str
    """12 hex digits over labels and file sizes: tells data sets apart."""
    labels: Sequence[ImageLabel]

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3], BGR. May be smaller than `labels[index].size` (same aspect): boxes
        scale by H / height. Raises `UnreadableImage` for a file that cannot be decoded."""

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of the original image, not decoded where its file's header tells it.
        Raises `UnreadableImage` as well."""


class UnreadableImage(Exception):
    """A file that is no image; skipped and counted."""
