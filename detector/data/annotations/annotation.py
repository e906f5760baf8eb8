"""The content of annotation files of any format, before anything is dropped or rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

import numpy as np

from detector.base import files
from detector.base.errors import UserError
from detector.data.types import ImageLabel

MAX_COORDINATE = 1e9  # px; larger numbers are errors


@dataclass(frozen=True, eq=False)
class ImageFaces:
    """The faces of one image as in the file, in px of the image."""

    name: str
    boxes: np.ndarray
    """float64 [N, 4]: x, y, width, height; may be of no or negative size, or outside the image."""
    landmarks: np.ndarray
    """float64 [N, 5, 2] in the order of `ImageLabel`; NaN where unknown."""
    attributes: tuple[dict, ...]
    """Other information on each face, as plain data: WIDER's six flags by name, `blur_score` and
    `landmark_flags` (five; 1 if hidden) of RetinaFace."""
    size: tuple[int, int] = (0, 0)
    """(width, height); (0, 0) if unknown."""

    @property
    def ignore(self) -> np.ndarray:
        """bool [N]: flagged invalid."""
        return np.array([face.get("invalid") == 1 for face in self.attributes], bool)


@dataclass(eq=False)
class Annotation:
    """The content of an annotation file."""

    images: list[ImageFaces] = field(default_factory=list)
    """Without duplicate names; all numbers are finite except unknown landmarks."""
    notes: list[str] = field(default_factory=list)
    """What the reader left out, a line each."""

    @cached_property
    def labels(self) -> list[ImageLabel]:
        """Labels for training and evaluation, without invalid boxes; see `dropped`."""
        return [_label(image, valid) for image, valid in zip(self.images, self._valid)]

    @property
    def dropped(self) -> int:
        """Number of boxes that the labels lack: without width or height, or completely left of or
        above the image."""
        return sum(int((~valid).sum()) for valid in self._valid)

    @property
    def first_dropped(self) -> str:
        """Such as "face 2 of 0--Parade/a.jpg (5 6 0 8)"; needs a dropped box."""
        image, valid = next((i, v) for i, v in zip(self.images, self._valid) if not v.all())
        index = int(np.argmin(valid))
        box = " ".join(f"{value:g}" for value in image.boxes[index])
        return f"face {index + 1} of {image.name} ({box})"

    @cached_property
    def _valid(self) -> list[np.ndarray]:
        return [
            (i.boxes[:, 2:] > 0).all(axis=1) & (i.boxes[:, :2] + i.boxes[:, 2:] > 0).all(axis=1)
            for i in self.images
        ]


def _label(image: ImageFaces, valid: np.ndarray) -> ImageLabel:
    corner, extent = image.boxes[valid, :2], image.boxes[valid, 2:]
    boxes = np.concatenate([corner, corner + extent], axis=1).clip(0).astype(np.float32)
    return ImageLabel(
        image.name,
        image.size,
        boxes,
        image.landmarks[valid].astype(np.float32),
        image.ignore[valid],
    )


def image_faces(
    name: str,
    boxes: Sequence,
    landmarks: Sequence | None = None,
    attributes: Sequence[dict] | None = None,
    size: tuple[int, int] = (0, 0),
) -> ImageFaces:
    """An `ImageFaces` from lists; missing arguments are unknown."""
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
        UserError: it cannot be read, or is not text.
    """
    way_out = "give the annotation file as published"
    try:
        return files.read_text(path)
    except OSError as error:
        raise files.cannot_read(path, error, way_out) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text ({error}); {way_out}") from error


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number of a size that files may have."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < MAX_COORDINATE
    )


def attribute(face: dict, name: str) -> float:
    """An attribute for formats of numbers, where true is 1; 0 if it is missing or anything else."""
    value = face.get(name)
    return value if is_number(value) else float(value is True)


def landmark_flags(face: dict) -> list[float]:
    """Whether each of the five landmarks is hidden; 0 if that is missing or anything else."""
    flags = face.get("landmark_flags")
    if isinstance(flags, list) and len(flags) == 5 and all(map(is_number, flags)):
        return flags
    return [0] * 5


def number(value: float) -> int | float:
    """A number for files: rounded to a millionth, whole numbers as int."""
    rounded = round(float(value), 6)
    return int(rounded) if rounded == int(rounded) else rounded
