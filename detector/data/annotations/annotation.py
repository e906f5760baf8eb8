"""What annotation files of any format say, before anything is left out or rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from detector.base.errors import UserError
from detector.data.types import ImageLabel

LARGEST = 1e9  # px: what is beyond is no coordinate


@dataclass(frozen=True, eq=False)
class ImageFaces:
    """The faces of one image as its file has them, in px of the image."""

    name: str
    boxes: np.ndarray
    """float64 [N, 4]: x, y, width, height; may be of no or negative size, or outside the image."""
    landmarks: np.ndarray
    """float64 [N, 5, 2] in the order of `ImageLabel`; NaN where unknown."""
    attributes: tuple[dict, ...]
    """What else is known of each face, plain data: WIDER's six flags by name, `blur_score` and
    `landmark_flags` (five; 1 where hidden) of RetinaFace."""
    size: tuple[int, int] = (0, 0)
    """(width, height); (0, 0) where not known."""

    @property
    def ignore(self) -> np.ndarray:
        """bool [N]: flagged invalid."""
        return np.array([face.get("invalid") == 1 for face in self.attributes], bool)


@dataclass(eq=False)
class Annotation:
    """What an annotation file says."""

    images: list[ImageFaces] = field(default_factory=list)
    """Names are different; all numbers are finite, but for unknown landmarks."""
    notes: list[str] = field(default_factory=list)
    """Facts about what the reader left out, a line each."""

    @cached_property
    def labels(self) -> list[ImageLabel]:
        """To train and evaluate on: boxes have area and reach into the image's upper left."""
        return [_label(image, kept) for image, kept in zip(self.images, self._kept)]

    @property
    def dropped(self) -> int:
        """Boxes that the labels lack: of no width or height, or wholly left of or above the
        image."""
        return sum(int((~kept).sum()) for kept in self._kept)

    @property
    def first_dropped(self) -> str:
        """Such as "face 2 of 0--Parade/a.jpg (5 6 0 8)"; needs a dropped box."""
        image, kept = next((i, k) for i, k in zip(self.images, self._kept) if not k.all())
        at = int(np.argmin(kept))
        return f"face {at + 1} of {image.name} ({' '.join(f'{v:g}' for v in image.boxes[at])})"

    @cached_property
    def _kept(self) -> list[np.ndarray]:
        return [
            (i.boxes[:, 2:] > 0).all(axis=1) & (i.boxes[:, :2] + i.boxes[:, 2:] > 0).all(axis=1)
            for i in self.images
        ]


def _label(image: ImageFaces, kept: np.ndarray) -> ImageLabel:
    corner, extent = image.boxes[kept, :2], image.boxes[kept, 2:]
    boxes = np.concatenate([corner, corner + extent], axis=1).clip(0).astype(np.float32)
    return ImageLabel(
        image.name, image.size, boxes, image.landmarks[kept].astype(np.float32), image.ignore[kept]
    )


def faces(
    name: str,
    boxes: Sequence,
    landmarks: Sequence | None = None,
    attributes: Sequence[dict] | None = None,
    size: tuple[int, int] = (0, 0),
) -> ImageFaces:
    """An `ImageFaces` from lists; what is not given is unknown."""
    count = len(boxes)
    points = (
        np.full((count, 5, 2), np.nan)
        if landmarks is None
        else np.array(landmarks, np.float64).reshape(count, 5, 2)
    )
    return ImageFaces(
        name,
        np.array(boxes, np.float64).reshape(count, 4),
        points,
        tuple(attributes or [{} for _ in range(count)]),
        size,
    )


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read as text ({error}); give the annotation file as published"
        ) from error


def number(value: float) -> int | float:
    """As files have it: a millionth of a pixel, whole numbers without a point."""
    rounded = round(float(value), 6)
    return int(rounded) if rounded == int(rounded) else rounded
