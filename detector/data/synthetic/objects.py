"""The objects of drawn scenes, faces and distractors, as geometry without pixels.

A face is an ellipsoid in units of half its height: x to the right, y down, centre 0, chin at
y = 1, half as deep and wide as `Face.width`. Its features lie on that surface, so that a turned
head shows them turned, and its landmarks follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# left eye, right eye, nose tip, left and right mouth corner of a frontal face
POINTS = np.array([(-0.33, -0.12), (0.33, -0.12), (0, 0.26), (-0.25, 0.53), (0.25, 0.53)])
COVERS = ("mask", "hand", "scarf", "bar")
DISTRACTORS = ("ball", "blank", "clock", "button", "window", "jumble")


@dataclass(frozen=True)
class Face:
    x: float
    """Centre in px of the image, like y."""
    y: float
    height: float
    """Forehead to chin in px, before the head is tilted."""
    width: float
    """Over height."""
    roll: float
    """In-plane rotation in radians, clockwise."""
    yaw: float
    """Rotation in radians, to the right of the image."""
    cover: str | None
    """What covers a part of it, one of COVERS; None if nothing does."""

    @staticmethod
    def random(x: float, y: float, height: float, rng: np.random.Generator) -> Face:
        return Face(
            x,
            y,
            height,
            width=rng.uniform(0.7, 0.84),
            roll=float(np.clip(0.16 * rng.standard_normal(), -0.7, 0.7)),
            yaw=float(np.clip(0.35 * rng.standard_normal(), -0.9, 0.9)),
            cover=rng.choice(COVERS) if rng.random() < 0.13 else None,
        )

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 of the tilted ellipse, in px."""
        half = self.height / 2
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        dx = half * np.hypot(self.width * cos, sin)
        dy = half * np.hypot(self.width * sin, cos)
        return self.x - dx, self.y - dy, self.x + dx, self.y + dy


@dataclass(frozen=True)
class Distractor:
    """Not a face, but similar: round, or coloured like skin, or with two dark spots."""

    x: float
    y: float
    height: float
    kind: str

    @staticmethod
    def random(x: float, y: float, height: float, rng: np.random.Generator) -> Distractor:
        return Distractor(x, y, height, str(rng.choice(DISTRACTORS)))


def landmarks_of(face: Face) -> np.ndarray:
    """float64 [5, 2]: the landmarks in px, in the order of `ImageLabel`."""
    depth = np.array([0, 0, 0.16, 0, 0])  # the nose protrudes
    points = turn(POINTS, face.width, face.yaw, depth)
    return tilt(points, face.roll) * face.height / 2 + (face.x, face.y)


def turn(
    points: np.ndarray, width: float, yaw: float, depth: float | np.ndarray = 0.0
) -> np.ndarray:
    """Points [N, 2] on the front of the ellipsoid after a rotation by `yaw`."""
    x, y = points.T
    z = width * np.sqrt(np.maximum(0, 1 - (x / width) ** 2 - y * y)) + depth
    turned = points.astype(float)
    turned[:, 0] = x * math.cos(yaw) + z * math.sin(yaw)
    return turned


def tilt(points: np.ndarray, roll: float) -> np.ndarray:
    """Points [N, 2] after an in-plane rotation by `roll`."""
    cos, sin = math.cos(roll), math.sin(roll)
    return points @ np.array(((cos, sin), (-sin, cos)))
