"""Faces of images as arrays, as the augmentation moves them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces of one image or of several, each in its image's pixels."""

    boxes: np.ndarray
    """float32 [N, 4]: x1, y1, x2, y2."""
    landmarks: np.ndarray
    """float32 [N, 5, 2]; NaN where unknown."""
    ignore: np.ndarray
    """bool [N]."""
    image: np.ndarray | None = None
    """int64 [N], ascending: index in the batch of each face's image; None for a single image."""

    def __getitem__(self, selected: np.ndarray) -> Faces:
        return Faces(
            self.boxes[selected],
            self.landmarks[selected],
            self.ignore[selected],
            None if self.image is None else self.image[selected],
        )

    @property
    def image_indices(self) -> np.ndarray:
        """`image`, which must be set."""
        assert self.image is not None
        return self.image

    @property
    def centres(self) -> np.ndarray:
        """[N, 2]: x, y."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def batched(self) -> Faces:
        """The same with `image` set; 0 for a single image."""
        return (
            self
            if self.image is not None
            else Faces(self.boxes, self.landmarks, self.ignore, np.zeros(len(self.boxes), np.int64))
        )

    def moved(self, scale: float | np.ndarray, shift: np.ndarray) -> Faces:
        """Every point p becomes (p - shift) * scale; both are a number, or x, y, or x, y of each
        face."""
        scale = np.broadcast_to(np.asarray(scale, np.float32), (len(self.boxes), 2))
        shift = np.broadcast_to(np.asarray(shift, np.float32), (len(self.boxes), 2))
        boxes = (self.boxes - np.tile(shift, 2)) * np.tile(scale, 2)
        return Faces(
            boxes, (self.landmarks - shift[:, None]) * scale[:, None], self.ignore, self.image
        )
