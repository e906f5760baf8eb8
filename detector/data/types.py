"""The image set: the interface that data sets, caches and evaluators share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class ImageLabel:
    """The ground truth of one image, in pixels of the original image."""

    name: str
    """`<event>/<file name>`, unique in a set; a set without folders has file names alone."""
    size: tuple[int, int]
    """(width, height) of the original image; (0, 0) if unknown before it is decoded."""
    boxes: np.ndarray
    """float32 [N, 4]: x1, y1, x2, y2. N may be 0."""
    landmarks: np.ndarray
    """float32 [N, 5, 2]: left eye, right eye, nose, left and right mouth corner as seen in the
    image; NaN where unknown."""
    ignore: np.ndarray
    """bool [N]: neither trained on nor counted as missed."""

    @property
    def event(self) -> str:
        return event_of(self.name)


def event_of(name: str) -> str:
    """The event of an image's name; "", as of all others like it, if that has no folder."""
    event, slash, _ = name.partition("/")
    return event if slash else ""


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


WIDER = "WIDER FACE"
"""The name of that data set."""
WIDER_IMAGE = re.compile(r"\d+--[^/]+/\d+_[^/]+")
"""Its images' names, such as 0--Parade/0_Parade_marchingband_1_849.jpg."""


def image_key(name: str) -> str:
    """`<event>/<file name>` without the image's suffix, the key in lists and prediction files."""
    stem, dot, suffix = name.rpartition(".")
    return stem if (dot + suffix).lower() in IMAGE_SUFFIXES else name


class ImageSet(Protocol):
    """Labelled images; the same index always returns the same pixels."""

    name: str
    """Shown to the user: "WIDER train", "synthetic val" …"""
    fingerprint: str
    """12 hex digits of a hash of labels and file sizes, to distinguish data sets."""
    labels: Sequence[ImageLabel]

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3], BGR. May be smaller than `labels[index].size` (same aspect): boxes
        scale by H / height. Raises `UnreadableImage` for a file that cannot be decoded, or whose
        aspect is not that of its label."""

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of the original image, from the file's header if possible. Raises
        `UnreadableImage`, too."""


class UnreadableImage(Exception):
    """A file that cannot be decoded as an image, or not as the one that its label describes; it is
    skipped and counted."""


def why_unreadable(images: ImageSet, name: str) -> str:
    """Why an image cannot be read, with its path; the name alone if it can be by now."""
    index = next(i for i, label in enumerate(images.labels) if label.name == name)
    try:
        images.image(index)
    except UnreadableImage as error:
        return str(error)
    return name
