"""The built-in data set of drawn scenes: which object is where; `painting` paints them.

Every image has its own random generator (seed, split, index), so it depends on nothing else. Faces
are as small as in WIDER FACE, with distractors that resemble faces beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.data.splits import fingerprint, label_bytes
from detector.data.synthetic.objects import Distractor, Face, landmarks_of
from detector.data.synthetic.painting import paint
from detector.data.types import ImageLabel

SEED = 20
VERSION = 1  # incremented when the same seed gives other images


@dataclass(frozen=True)
class Style:
    """A kind of scene; each is a separate event."""

    name: str
    faces: tuple[int, int]
    """Least and greatest number of faces."""
    height: float
    """Median height of the faces in px."""
    spread: float
    """Standard deviation of the log of a scene's typical height."""
    things: int
    """Greatest number of distractors."""
    background: str
    empty: float = 0.04
    """Share of scenes without faces."""


STYLES = (
    Style("0--Plain", (1, 4), 55, 0.4, 2, "gradient"),
    Style("1--Crowd", (8, 12), 17, 0.3, 1, "noise", 0.0),
    Style("2--Street", (4, 10), 19, 0.45, 3, "blocks"),
    Style("3--Night", (3, 8), 22, 0.45, 2, "dark"),
    Style("4--Stage", (3, 7), 30, 0.45, 2, "stripes"),
    Style("5--Park", (4, 10), 17, 0.45, 3, "leaves"),
    Style("6--Portrait", (1, 3), 90, 0.3, 2, "gradient", 0.0),
    Style("7--Office", (3, 9), 22, 0.45, 4, "blocks", 0.15),
)
_SPLITS = {"train": 0, "val": 1}


@dataclass(frozen=True)
class Scene:
    """The objects in an image, distant ones first."""

    name: str
    size: tuple[int, int]
    background: str
    items: tuple[Face | Distractor, ...]


class SyntheticImages:
    """An `ImageSet` of the scenes of one split, drawn on demand."""

    def __init__(self, split: str, count: int, seed: int = SEED):
        self.name = f"synthetic {split}"
        self._split, self._seed = split, seed
        self.source = {"scenes": split, "seed": seed}
        self.labels: Sequence[ImageLabel] = [
            label_of(compose(split, i, seed)) for i in range(count)
        ]
        self.fingerprint = fingerprint("synthetic", VERSION, seed, label_bytes(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return draw(self._split, index, self._seed)

    def size(self, index: int) -> tuple[int, int]:
        return self.labels[index].size


def draw(split: str, index: int, seed: int = SEED) -> np.ndarray:
    """uint8 [H, W, 3], BGR: a scene as an image."""
    scene = compose(split, index, seed)
    rng = np.random.default_rng((seed, _SPLITS[split], index, 1))
    return paint(scene.size, scene.background, scene.items, rng)


def index_of(name: str) -> int:
    """The index of the scene with that name."""
    return int(name.rpartition("_")[2].removesuffix(".jpg"))


def compose(split: str, index: int, seed: int = SEED) -> Scene:
    """The objects of a scene, without pixels."""
    rng = np.random.default_rng((seed, _SPLITS[split], index, 0))
    style = STYLES[index % len(STYLES)]
    size = int(rng.integers(288, 353)), int(rng.integers(240, 273))
    count = (
        0 if rng.random() < style.empty else int(rng.integers(style.faces[0], style.faces[1] + 1))
    )
    typical = style.height * np.exp(style.spread * rng.standard_normal())
    items: list[Face | Distractor] = []
    for kind, number, spread in (
        (Face, count, 0.25),
        (Distractor, int(rng.integers(0, style.things + 1)), 0.5),
    ):
        for _ in range(number):
            height = typical * np.exp(spread * rng.standard_normal())
            height = float(np.clip(height, 7, 0.8 * size[1]))
            for x, y in rng.random((12, 2)):
                item = kind.random(
                    *(_within(x, size[0], height), _within(y, size[1], height)), height, rng
                )
                if all(_apart(item, other) for other in items):
                    items.append(item)
                    break
    items.sort(key=lambda item: item.height)  # large objects are near, and in front
    return Scene(f"{style.name}/scene_{index:04d}.jpg", size, style.background, tuple(items))


def _within(share: float, side: float, height: float) -> float:
    """A coordinate at which an object of this height is inside the image."""
    return height / 2 + share * max(side - height, 0)


def _apart(a: Face | Distractor, b: Face | Distractor) -> bool:
    """Whether the heads hardly overlap, and the nearer one's body hides little of the other."""
    distance = np.hypot(a.x - b.x, a.y - b.y)
    if distance < 0.55 * (a.height + b.height):
        return False
    near, far = (a, b) if a.height > b.height else (b, a)
    if isinstance(near, Distractor) and near.kind != "blank":  # no body
        return True
    # shoulders reach 1.8 half heights to each side, from the chin to 2.5 below the centre
    below = (
        far.y + 0.3 * far.height > near.y + 0.6 * near.height
        and far.y - 0.5 * far.height < near.y + 1.25 * near.height
    )
    return not below or abs(far.x - near.x) > 0.9 * near.height + 0.2 * far.height


def label_of(scene: Scene) -> ImageLabel:
    """The faces of a scene, clipped to it."""
    faces = [item for item in scene.items if isinstance(item, Face)]
    boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
    boxes = boxes.clip(0, np.tile(np.array(scene.size, np.float32), 2))
    landmarks = np.array([landmarks_of(face) for face in faces], np.float32).reshape(-1, 5, 2)
    return ImageLabel(scene.name, scene.size, boxes, landmarks, np.zeros(len(faces), bool))
