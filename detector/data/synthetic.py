"""Drawn scenes with faces: the built-in data set. What is where; `painting` draws it.

Every picture has its own generator (seed, split, index), so that it depends on nothing else.
Faces are as small as WIDER's, and things that look like faces stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.data.painting import Face, Thing, landmarks_of, paint
from detector.data.splits import fingerprint, label_bytes
from detector.data.types import ImageLabel

SEED = 20
VERSION = 1  # goes up when the same seed draws other pictures


@dataclass(frozen=True)
class Style:
    """A kind of scene; each is an event of its own."""

    name: str
    faces: tuple[int, int]
    """Fewest and most faces."""
    height: float
    """Median of the faces' heights in px."""
    spread: float
    """Standard deviation of the log of a scene's typical height."""
    things: int
    """Most distractors."""
    background: str
    empty: float = 0.04
    """Share of scenes without faces."""


STYLES = (
    Style("0--Plain", (1, 4), 34, 0.5, 2, "gradient"),
    Style("1--Crowd", (6, 12), 15, 0.3, 1, "noise", 0.0),
    Style("2--Street", (3, 9), 16, 0.4, 4, "blocks"),
    Style("3--Night", (2, 7), 19, 0.4, 3, "dark"),
    Style("4--Stage", (2, 6), 22, 0.4, 3, "stripes"),
    Style("5--Park", (3, 9), 15, 0.4, 4, "leaves"),
    Style("6--Portrait", (1, 2), 85, 0.4, 2, "gradient", 0.0),
    Style("7--Office", (2, 8), 18, 0.4, 5, "blocks", 0.15),
)
_SPLITS = {"train": 0, "val": 1}


@dataclass(frozen=True)
class Scene:
    """What is in a picture, far things first."""

    name: str
    size: tuple[int, int]
    background: str
    items: tuple[Face | Thing, ...]


class DrawnImages:
    """Scenes of one split, drawn when asked for."""

    def __init__(self, split: str, count: int, seed: int = SEED):
        self.name = f"synthetic {split}"
        self._split, self._seed = split, seed
        self.labels = [label_of(compose(split, i, seed)) for i in range(count)]
        self.fingerprint = fingerprint("synthetic", VERSION, seed, label_bytes(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        scene = compose(self._split, index, self._seed)
        rng = np.random.default_rng((self._seed, _SPLITS[self._split], index, 1))
        return paint(scene.size, scene.background, scene.items, rng)


def compose(split: str, index: int, seed: int = SEED) -> Scene:
    """The plan of a scene, without its pixels."""
    rng = np.random.default_rng((seed, _SPLITS[split], index, 0))
    style = STYLES[index % len(STYLES)]
    size = int(rng.integers(288, 353)), int(rng.integers(240, 273))
    count = 0 if rng.random() < style.empty else int(rng.integers(style.faces[0],
                                                                  style.faces[1] + 1))
    typical = style.height * np.exp(style.spread * rng.standard_normal())
    taken: list[tuple[float, float, float]] = []  # x, y, radius
    items: list[Face | Thing] = []
    for _ in range(count):
        height = float(np.clip(typical * np.exp(0.25 * rng.standard_normal()), 7, 0.85 * size[1]))
        place = _place(size, height, 0.55, taken, rng)
        if place is not None:
            items.append(Face.random(*place, height, rng))
    for _ in range(int(rng.integers(0, style.things + 1))):
        height = float(np.clip(typical * np.exp(0.5 * rng.standard_normal()), 8, 0.5 * size[1]))
        place = _place(size, height, 0.6, taken, rng)
        if place is not None:
            items.append(Thing.random(*place, height, rng))
    items.sort(key=lambda item: item.height)  # what is large is near, and in front
    return Scene(f"{style.name}/scene_{index:04d}.jpg", size, style.background, tuple(items))


def _place(size: tuple[int, int], height: float, radius: float,
           taken: list[tuple[float, float, float]],
           rng: np.random.Generator) -> tuple[float, float] | None:
    """A centre whose circle touches none of those taken; none after 30 tries."""
    margin = 0.5 * height
    radius *= height
    for x, y in rng.random((30, 2)):
        x = margin + x * max(size[0] - 2 * margin, 0)
        y = margin + y * max(size[1] - 2 * margin, 0)
        if all((x - a) ** 2 + (y - b) ** 2 > (radius + r) ** 2 for a, b, r in taken):
            taken.append((x, y, radius))
            return float(x), float(y)
    return None


def label_of(scene: Scene) -> ImageLabel:
    """The faces of a scene, clipped to it."""
    faces = [item for item in scene.items if isinstance(item, Face)]
    boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
    boxes = boxes.clip(0, np.tile(np.array(scene.size, np.float32), 2))
    landmarks = np.array([landmarks_of(face) for face in faces], np.float32).reshape(-1, 5, 2)
    return ImageLabel(scene.name, scene.size, boxes, landmarks, np.zeros(len(faces), bool))
