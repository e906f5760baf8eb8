"""What a detector is: frozen dataclasses that check themselves. Imports no torch.

A `Detector` says everything that gets built, in resolved numbers (channels, not
multipliers), so that `arch_hash` is the identity of a design.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from detector.errors import ConfigError
from detector.structs import Struct

LEVELS = (2, 3, 4, 5, 6, 7)  # pyramid level k has stride 2**k pixels

# Rows of each backbone kind: the pyramid level (log2 of the stride) that a row of blocks works at.
# The last row of a level gives that level's feature map.
BACKBONE_ROWS: dict[str, tuple[int, ...]] = {
    "mobilenet_v1": (1, 2, 3, 4, 5),
    "mobilenet_v2": (1, 2, 3, 4, 4, 5, 5),
    "resnet": (2, 3, 4, 5),
}
ACTIVATIONS = ("relu", "leaky_relu", "relu6")

# Square anchor sizes in pixels of the network's input, by pyramid level, and the ratios
# (height / width) each size is drawn at.
_THIRDS = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
ANCHOR_SETS: dict[str, tuple[dict[int, tuple[float, ...]], tuple[float, ...]]] = {
    # RetinaFace: 2 sizes a level, growing by 4 from level to level.
    "retinaface": ({2: (4, 8), 3: (16, 32), 4: (64, 128), 5: (256, 512), 6: (1024, 2048),
                    7: (4096, 8192)}, (1.0,)),
    # The same at the height / width of a typical WIDER face.
    "retinaface_tall": ({2: (4, 8), 3: (16, 32), 4: (64, 128), 5: (256, 512), 6: (1024, 2048),
                         7: (4096, 8192)}, (1.25,)),
    # One size a level, 4 strides wide: the cheapest head.
    "single": ({k: (4.0 * 2**k,) for k in LEVELS}, (1.0,)),
    # Two sizes a level, half an octave apart, from 2 strides up.
    "octave2": ({k: (2.0 * 2**k, 2.0 * 2**k * 2**0.5) for k in LEVELS}, (1.0,)),
    # Three sizes a level, a third of an octave apart (RetinaNet's spacing).
    "octave3": ({k: tuple(2.0 * 2**k * t for t in _THIRDS) for k in LEVELS}, (1.0,)),
    # The same with upright boxes, too: 6 anchors a cell.
    "octave3_ratios": ({k: tuple(2.0 * 2**k * t for t in _THIRDS) for k in LEVELS}, (1.0, 2.0)),
}


@dataclass(frozen=True, kw_only=True)
class Backbone(Struct):
    kind: str
    """One of BACKBONE_ROWS."""
    stem: int
    """Channels of the first convolution (stride 2)."""
    widths: tuple[int, ...]
    """Channels of each row of blocks; for bottlenecks those of the 3×3 convolution (output ×4)."""
    depths: tuple[int, ...]
    """Blocks in each row, at least 1; the first one carries the row's stride."""
    block: str = "basic"
    """resnet only: basic or bottleneck."""
    expansion: int = 6
    """mobilenet_v2 only: hidden channels over input channels (the first row has 1)."""
    activation: str = "relu"

    def __post_init__(self):
        _one_of("backbone.kind", self.kind, tuple(BACKBONE_ROWS))
        rows = len(BACKBONE_ROWS[self.kind])
        for key in ("widths", "depths"):
            values = getattr(self, key)
            if len(values) != rows:
                raise ConfigError(f"backbone.{key}: {list(values)} has {len(values)} entries; "
                                  f"{self.kind} has {rows} rows, give one number for each")
            for value in values:
                _positive(f"backbone.{key}", value)
        _positive("backbone.stem", self.stem)
        _positive("backbone.expansion", self.expansion)
        _one_of("backbone.block", self.block, ("basic", "bottleneck"))
        _one_of("backbone.activation", self.activation, ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class Neck(Struct):
    levels: tuple[int, ...]
    """Ascending pyramid levels among 2–7; above 5 they are stride-2 convolutions on top."""
    width: int
    """Channels of every level; a multiple of 4 where a context module follows."""
    shared_merge: bool = False
    """One 3×3 merge convolution for all levels instead of one each."""
    activation: str = "relu"

    def __post_init__(self):
        levels = self.levels
        if not levels or list(levels) != sorted(set(levels)) or not set(levels) <= set(LEVELS):
            raise ConfigError(f"neck.levels: {list(levels)} must be ascending levels among 2–7, "
                              "such as [3, 4, 5]")
        if levels[0] > 5:
            raise ConfigError(f"neck.levels: {list(levels)} has none of the backbone's own levels; "
                              "start at 5 or finer")
        _positive("neck.width", self.width)
        _one_of("neck.activation", self.activation, ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class Context(Struct):
    kind: str = "ssh"
    """ssh (one module a level), ssh_shared (one for all levels) or none."""
    activation: str = "relu"
    """Inside the module; it always ends with ReLU."""

    def __post_init__(self):
        _one_of("context.kind", self.kind, ("ssh", "ssh_shared", "none"))
        _one_of("context.activation", self.activation, ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class Head(Struct):
    landmarks: bool = True
    """Predict five landmarks beside class and box."""


@dataclass(frozen=True, kw_only=True)
class Anchors(Struct):
    name: str | None = None
    """A set of ANCHOR_SETS; or none, and `sizes` given."""
    sizes: tuple[tuple[float, ...], ...] | None = None
    """Sizes in input pixels, one tuple for each level of the neck."""
    ratios: tuple[float, ...] = (1.0,)
    """Height / width, with `sizes`; a size s and ratio r give s/√r × s·√r."""

    def __post_init__(self):
        if (self.name is None) == (self.sizes is None):
            raise ConfigError("anchors: give either name (one of "
                              f"{', '.join(ANCHOR_SETS)}) or sizes, not both or none")
        if self.name is not None:
            _one_of("anchors.name", self.name, tuple(ANCHOR_SETS))
            if self.ratios != (1.0,):
                raise ConfigError("anchors.ratios: a named set has its own; give sizes with ratios")
        for size in (s for level in self.sizes or () for s in level):
            _positive("anchors.sizes", size)
        if self.sizes is not None and not all(self.sizes):
            raise ConfigError("anchors.sizes: a level has no size; give at least one for each")
        for ratio in self.ratios:
            _positive("anchors.ratios", ratio)
        if not self.ratios:
            raise ConfigError("anchors.ratios: empty; give at least one, such as [1.0]")


@dataclass(frozen=True, kw_only=True)
class Pixels(Struct):
    """How raw pixels (BGR, 0–255) become the network's input; done inside the network."""

    order: str = "bgr"
    """bgr or rgb."""
    mean: tuple[float, float, float] = (104.0, 117.0, 123.0)
    """Subtracted, in the given order, 0–255."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divided by, after the mean."""

    def __post_init__(self):
        _one_of("pixels.order", self.order, ("bgr", "rgb"))
        for value in self.std:
            _positive("pixels.std", value)


@dataclass(frozen=True, kw_only=True)
class Detector(Struct):
    backbone: Backbone
    neck: Neck
    context: Context = field(default_factory=Context)
    head: Head = field(default_factory=Head)
    anchors: Anchors = field(default_factory=lambda: Anchors(name="retinaface"))
    pixels: Pixels = field(default_factory=Pixels)

    def __post_init__(self):
        if self.context.kind != "none" and self.neck.width % 4:
            raise ConfigError(f"neck.width: {self.neck.width} must be a multiple of 4 "
                              f"with context.kind {self.context.kind}")
        sizes = self.anchors.sizes
        if sizes is not None and len(sizes) != len(self.neck.levels):
            raise ConfigError(f"anchors.sizes: {len(sizes)} levels given for neck.levels "
                              f"{list(self.neck.levels)}; give one tuple for each")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between neighbouring cells, for each level of the neck."""
        return tuple(2**level for level in self.neck.levels)

    def anchor_shapes(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """(width, height) in input pixels of each anchor of a cell, for each level of the neck."""
        if self.anchors.name is not None:
            by_level, ratios = ANCHOR_SETS[self.anchors.name]
            sizes = tuple(by_level[level] for level in self.neck.levels)
        else:
            sizes, ratios = self.anchors.sizes, self.anchors.ratios
        return tuple(tuple((s / r**0.5, s * r**0.5) for s in level for r in ratios)
                     for level in sizes)


def canonical(detector: Detector) -> dict:
    """The resolved configuration as plain data, without what does not get built."""
    design = detector.to_dict()
    backbone, neck = design["backbone"], detector.neck
    top = min(5, neck.levels[-1])  # rows above the coarsest level used are not built
    rows = sum(level <= top for level in BACKBONE_ROWS[detector.backbone.kind])
    backbone["widths"], backbone["depths"] = backbone["widths"][:rows], backbone["depths"][:rows]
    if detector.backbone.kind != "resnet":
        del backbone["block"]
    if detector.backbone.kind != "mobilenet_v2":
        del backbone["expansion"]
    if len([level for level in neck.levels if level <= 5]) < 3:  # one merge at most
        del design["neck"]["shared_merge"]
    if detector.context.kind == "none":
        del design["context"]["activation"]
    elif detector.context.kind == "ssh_shared" and len(neck.levels) == 1:
        design["context"]["kind"] = "ssh"
    design["anchors"] = [[list(shape) for shape in level] for level in detector.anchor_shapes()]
    return design


def arch_hash(detector: Detector) -> str:
    """Identity of a design: 12 hex digits over `canonical`."""
    text = json.dumps(canonical(detector), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _one_of(key: str, value, choices: tuple) -> None:
    if value not in choices:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(map(str, choices))}")


def _positive(key: str, value) -> None:
    if not value > 0:
        raise ConfigError(f"{key}: {value} must be greater than 0")
