"""The design of a detector: frozen dataclasses that check themselves. Imports no torch.

A `Detector` describes everything that gets built, in resolved numbers (channels, not multipliers),
so that `arch_hash` identifies a design.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache

from detector.base.errors import ConfigError
from detector.base.struct import Struct
from detector.config.anchors import ANCHOR_SETS, LEVELS, Anchors
from detector.config.backbones import (
    BACKBONES,
    BLOCKS,
    OPTIONS,
    ROW_BLOCKS,
    ROW_OPTIONS,
    BackboneSpec,
    published_backbone,
)
from detector.config.checks import one_of, positive
from detector.config.limits import MAX_BLOCKS, MAX_CHANNELS, MAX_FACTOR, MAX_KERNEL

ACTIVATIONS = ("relu", "leaky_relu", "relu6", "hard_swish", "silu")
# Their layers: detector/architecture/plan.py, which also adds those of plugins.
NECKS = ["fpn", "pafpn", "tfpn", "sepfpn", "none"]
NECKS_WITHOUT_WIDTH = ("tfpn", "sepfpn", "none")
"""Those that keep the channels of the backbone."""
CONTEXTS = ("ssh", "ssh_shared", "cascade", "cascade_shared", "none")
HEAD_BLOCKS = ["conv", "separable", "unit"]
PREDICTORS = ["pointwise", "conv3", "depthwise", "unit"]


@dataclass(frozen=True, kw_only=True)
class Backbone(Struct):
    kind: str
    """One of BACKBONES."""
    stem: int
    """Channels of the first convolution (stride 2)."""
    widths: tuple[int, ...]
    """Channels of each row of blocks; of bottlenecks, those of the 3×3 convolution (output ×4)."""
    depths: tuple[int, ...]
    """Blocks of each row, at least 1; the first one has the row's stride."""
    block: str = "basic"
    """resnet: basic or bottleneck."""
    variant: str = "plain"
    """resnet: plain, or d (three 3×3 convolutions as stem, 2×2 max pool, shortcuts that average
    before they project)."""
    expansion: int = 6
    """mobilenet_v2 kinds: hidden channels over input channels (the first row has 1)."""
    last_expansion: int | None = None
    """mobilenet_v2 kinds: that of the last row; None means that of the others."""
    blocks: tuple[str, ...] | None = None
    """damofd: kind of the residual blocks of each row: basic (two convolutions), bottleneck (one
    between two pointwise ones) or inverted (a depthwise one between two pointwise ones)."""
    kernels: tuple[int, ...] | None = None
    """damofd: odd kernel size of each row's basic, middle or depthwise convolutions."""
    mid_widths: tuple[int, ...] | None = None
    """damofd: channels inside each row's basic and bottleneck blocks; of inverted ones, the outputs
    of the last but one, the last but three, ...: they are narrow and wide in turns, the last one
    has the row's width."""
    stem_depth: int = 1
    """damofd: 3×3 convolutions of the stem."""
    input_norm: bool = False
    """Batch normalisation of the input image."""
    activation: str = "relu"

    def __post_init__(self):
        one_of("backbone.kind", self.kind, tuple(BACKBONES))
        for key, most in (("widths", MAX_CHANNELS), ("depths", MAX_BLOCKS)):
            for value in self._row_values(key):
                positive(f"backbone.{key}", value, most)
        self._check_row_options()
        positive("backbone.stem", self.stem, MAX_CHANNELS)
        positive("backbone.expansion", self.expansion, MAX_FACTOR)
        if self.last_expansion is not None:
            positive("backbone.last_expansion", self.last_expansion, MAX_FACTOR)
        has_blocks = "block" in self.spec.options
        one_of("backbone.block", self.block, tuple(self.spec.published) if has_blocks else BLOCKS)
        one_of("backbone.variant", self.variant, ("plain", "d"))
        if "variant" in self.spec.options and self.variant == "d" and self.stem < 2:
            raise ConfigError(f"backbone.stem: {self.stem} must be at least 2 with variant d")
        one_of("backbone.activation", self.activation, ACTIVATIONS)

    def _row_values(self, key: str) -> tuple:
        """A field that holds a value for each row of blocks."""
        values = getattr(self, key) or ()
        rows = len(self.spec.levels)
        if len(values) != rows:
            raise ConfigError(
                f"backbone.{key}: {list(values)} has {len(values)} entries; "
                f"{self.kind} has {rows} rows, give one value for each"
            )
        return values

    def _check_row_options(self) -> None:
        positive("backbone.stem_depth", self.stem_depth, MAX_BLOCKS)
        for key, plain in {**dict.fromkeys(ROW_OPTIONS), "stem_depth": 1}.items():
            if key not in self.spec.options and getattr(self, key) != plain:
                kinds = ", ".join(kind for kind, spec in BACKBONES.items() if key in spec.options)
                raise ConfigError(
                    f"backbone.{key}: only for backbone.kind {kinds}, not {self.kind}; leave it out"
                )
        if "blocks" not in self.spec.options:
            return
        for block in self._row_values("blocks"):
            one_of("backbone.blocks", block, ROW_BLOCKS)
        for kernel in self._row_values("kernels"):
            positive("backbone.kernels", kernel, MAX_KERNEL)
            if kernel % 2 == 0:
                raise ConfigError(f"backbone.kernels: {kernel} must be odd, such as 3, 5 or 7")
        for width in self._row_values("mid_widths"):
            positive("backbone.mid_widths", width, MAX_CHANNELS)

    @property
    def spec(self) -> BackboneSpec:
        """What all backbones of this kind have in common."""
        return BACKBONES[self.kind]

    def channels(self, level: int) -> int:
        """Channels of the feature map of a pyramid level that has rows of blocks."""
        row = max(row for row, own in enumerate(self.spec.levels) if own == level)
        return self.widths[row] * published_backbone(self.kind, self.block).out_factor


@dataclass(frozen=True, kw_only=True)
class Neck(Struct):
    levels: tuple[int, ...]
    """Ascending pyramid levels among 2–7; those above the backbone's coarsest, mostly 5, are extra
    stride-2 convolutions."""
    width: int
    """Channels of all levels; a multiple of 4 if a context module follows."""
    kind: str = "fpn"
    """fpn (RetinaFace's), pafpn (a bottom-up path after the top-down path; no norms), tfpn
    (YuNet's: a unit per level), sepfpn (EResFD's: two top-down paths, one for fine and one for
    coarse levels, and learnt weights of their sums) or none; the last three keep the backbone's
    channels, which `width` must equal."""
    shared_merge: bool = False
    """fpn: one 3×3 merge convolution for all levels instead of one per level."""
    activation: str = "relu"
    """fpn, tfpn and sepfpn."""
    split: int | None = None
    """sepfpn: the level at which the upper of the two paths begins, above the finest and below the
    coarsest one; None, or any other, means a single path."""

    def __post_init__(self):
        levels = self.levels
        one_of("neck.kind", self.kind, NECKS)
        if not levels or list(levels) != sorted(set(levels)) or not set(levels) <= set(LEVELS):
            raise ConfigError(
                f"neck.levels: {list(levels)} must be ascending levels among 2–7, such as [3, 4, 5]"
            )
        positive("neck.width", self.width, MAX_CHANNELS)
        one_of("neck.activation", self.activation, ACTIVATIONS)
        if self.split is not None:
            one_of("neck.split", self.split, LEVELS)

    @property
    def split_level(self) -> int | None:
        """The level at which sepfpn's upper path begins; None if there is a single path."""
        if self.kind != "sepfpn" or self.split is None:
            return None
        upper = [level for level in self.levels if level >= self.split]
        return upper[0] if 1 < len(upper) < len(self.levels) else None


@dataclass(frozen=True, kw_only=True)
class Context(Struct):
    kind: str = "ssh"
    """ssh (one module per level), ssh_shared (one for all levels), cascade and cascade_shared
    (EResFD's module, whose branches go on from one another) or none."""
    activation: str = "relu"
    """Inside the module; ssh always ends with ReLU."""

    def __post_init__(self):
        one_of("context.kind", self.kind, CONTEXTS)
        one_of("context.activation", self.activation, ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class Head(Struct):
    landmarks: bool = True
    """Whether five landmarks are predicted besides class and box."""
    layers: int = 0
    """Convolutions before the predictors, shared by all outputs."""
    width: int = 64
    """Their channels."""
    block: str = "conv"
    """Each of them: conv (3×3), separable (depthwise, then pointwise) or unit (pointwise, then
    depthwise)."""
    norm_groups: int | None = None
    """conv and separable: groups of group normalisation; None means batch normalisation."""
    predictor: str = "pointwise"
    """pointwise (1×1), conv3 (3×3), depthwise (3×3, norm, ReLU, then 1×1) or unit."""
    shared: bool = False
    """The same weights at all levels, with a learnt scale for the boxes of each level."""
    score: str = "softmax"
    """softmax (background, face), sigmoid (face only), or objectness (sigmoid, and a second output,
    the probability of an object, that the score is multiplied by)."""
    backgrounds: int = 1
    """softmax: scores of the background at the finest level, of which the largest counts (S3FD's
    max-out): most false faces are small."""
    coding: str = "anchor"
    """Coding of boxes and landmarks: anchor (SSD's offsets and log sizes), distance (to the four
    sides, in strides) or point (offset and log size, in strides)."""

    def __post_init__(self):
        if not 0 <= self.layers <= MAX_BLOCKS:
            raise ConfigError(
                f"head.layers: {self.layers} must be at least 0 and at most {MAX_BLOCKS:,}"
            )
        positive("head.width", self.width, MAX_CHANNELS)
        one_of("head.block", self.block, HEAD_BLOCKS)
        one_of("head.predictor", self.predictor, PREDICTORS)
        one_of("head.score", self.score, ("softmax", "sigmoid", "objectness"))
        one_of("head.coding", self.coding, ("anchor", "distance", "point"))
        positive("head.backgrounds", self.backgrounds, MAX_FACTOR)
        if self.backgrounds > 1 and (self.score != "softmax" or self.shared):
            raise ConfigError(
                f"head.backgrounds: {self.backgrounds} needs head.score softmax and a head that is "
                "not shared; set it to 1"
            )
        if self.norm_groups is not None:
            positive("head.norm_groups", self.norm_groups)


@dataclass(frozen=True, kw_only=True)
class Pixels(Struct):
    """Normalisation of raw pixels (BGR, 0–255), done inside the network."""

    order: str = "bgr"
    """bgr or rgb."""
    mean: tuple[float, float, float] = (104.0, 117.0, 123.0)
    """Subtracted, in the given order, 0–255."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divided by, after subtracting the mean."""

    def __post_init__(self):
        one_of("pixels.order", self.order, ("bgr", "rgb"))
        for value in self.std:
            positive("pixels.std", value)


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
            raise ConfigError(
                f"neck.width: {self.neck.width} must be a multiple of 4 "
                f"with context.kind {self.context.kind}"
            )
        for key in ("sizes", "shapes"):
            given = getattr(self.anchors, key)
            if given is not None and len(given) != len(self.neck.levels):
                raise ConfigError(
                    f"anchors.{key}: {len(given)} levels given for neck.levels "
                    f"{list(self.neck.levels)}; give one tuple for each"
                )
        self._check_levels()
        self._check_head()

    def _check_levels(self) -> None:
        levels, top = self.neck.levels, self.backbone.spec.top
        if levels[0] > top:
            raise ConfigError(
                f"neck.levels: {list(levels)} has none of the backbone's levels; "
                f"start at {top} or less"
            )
        if levels[-1] > top and self.neck.kind != "fpn":
            raise ConfigError(
                f"neck.levels: {list(levels)} has levels above {top}, which only "
                f"neck.kind fpn builds, not {self.neck.kind}"
            )
        for level in sorted({min(level, top) for level in levels}):
            if level not in self.backbone.spec.levels:
                raise ConfigError(
                    f"neck.levels: {list(self.neck.levels)} needs level {level}, "
                    f"which backbone.kind {self.backbone.kind} does not have"
                )
            channels = self.backbone.channels(level)
            if self.neck.kind in NECKS_WITHOUT_WIDTH and channels != self.neck.width:
                raise ConfigError(
                    f"neck.width: {self.neck.width} must equal the backbone's "
                    f"{channels} channels at level {level} with neck.kind "
                    f"{self.neck.kind}"
                )

    def _check_head(self) -> None:
        head = self.head
        if head.layers and head.norm_groups is not None and head.block != "unit":
            first = [self.neck.width] if head.block == "separable" else []
            for channels in (*first, head.width):
                if channels % head.norm_groups:
                    raise ConfigError(
                        f"head.norm_groups: {head.norm_groups} does not divide the "
                        f"{channels} channels that it normalises"
                    )
        if head.shared and len({len(level) for level in self.anchor_shapes()}) > 1:
            raise ConfigError(
                "head.shared: levels have different numbers of anchors; give all levels "
                "the same number, or set head.shared to false"
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between neighbouring cells, of each level of the neck."""
        return tuple(2**level for level in self.neck.levels)

    def anchor_shapes(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """(width, height) in input pixels of each anchor of a cell, of each level of the neck."""
        if self.anchors.shapes is not None:
            return self.anchors.shapes
        if self.anchors.name is not None:
            by_level, ratios = ANCHOR_SETS[self.anchors.name]
            sizes = tuple(by_level[level] for level in self.neck.levels)
        else:
            assert self.anchors.sizes is not None  # one of the three is given
            sizes, ratios = self.anchors.sizes, self.anchors.ratios
        return tuple(
            tuple((s / r**0.5, s * r**0.5) for s in level for r in ratios) for level in sizes
        )


def canonical(detector: Detector) -> dict:
    """The resolved configuration as plain data, without fields that do not affect what is built.

    Fields that the first version did not have are left out where they have RetinaFace's values, so
    that designs keep the hashes they had before the fields existed.
    """
    design = detector.to_dict()
    backbone, neck, head = design["backbone"], detector.neck, design["head"]
    spec = detector.backbone.spec
    top = min(spec.top, neck.levels[-1])  # rows above the coarsest level used are not built
    rows = sum(level <= top for level in spec.levels)
    if rows < len(spec.levels) or backbone["last_expansion"] == backbone["expansion"]:
        backbone["last_expansion"] = None
    for option in set(OPTIONS) - set(spec.options):
        del backbone[option]
    for key in ("widths", "depths", *ROW_OPTIONS):
        if key in backbone:
            backbone[key] = backbone[key][:rows]
    if "mid_widths" in backbone:
        built = zip(backbone["mid_widths"], backbone["blocks"], backbone["depths"])
        # A single inverted block is the last one of its row.
        backbone["mid_widths"] = [m * (b != "inverted" or d > 1) for m, b, d in built]
    if neck.kind == "fpn":
        has_merge = sum(level <= spec.top for level in neck.levels) > 2  # otherwise one at most
    else:  # a plugin's neck may read it; where it is false, designs keep the hashes they had
        has_merge = neck.shared_merge and neck.kind not in _NECKS_WITHOUT_MERGE
    if not has_merge:
        del design["neck"]["shared_merge"]
    if neck.kind in ("pafpn", "none") or (neck.kind == "sepfpn" and len(neck.levels) == 1):
        del design["neck"]["activation"]
    if neck.kind in ("fpn", *_NECKS_WITHOUT_MERGE):  # a plugin's neck may read it
        design["neck"]["split"] = neck.split_level
    if detector.context.kind == "none":
        del design["context"]["activation"]
    elif len(neck.levels) == 1:
        design["context"]["kind"] = detector.context.kind.removesuffix("_shared")
    if not detector.head.layers:
        del head["width"], head["block"]
    if not detector.head.layers or detector.head.block == "unit":
        del head["norm_groups"]
    for part, plain in (
        ("backbone", _PLAIN_BACKBONE),
        ("neck", {"kind": "fpn", "split": None}),
        ("head", Head().to_dict()),
    ):
        design[part] = {
            key: value
            for key, value in design[part].items()
            if key == "landmarks" or key not in plain or value != plain[key]
        }
    design["anchors"] = [[list(shape) for shape in level] for level in detector.anchor_shapes()]
    if detector.anchors.offset != 0.5:
        design["anchor_offset"] = detector.anchors.offset
    return design


_NECKS_WITHOUT_MERGE = ("pafpn", "tfpn", "sepfpn", "none")
_PLAIN_BACKBONE = {"variant": "plain", "last_expansion": None, "input_norm": False}


@lru_cache(maxsize=4096)
def arch_hash(detector: Detector) -> str:
    """Identity of a design: 12 hex digits of the SHA-256 of `canonical`."""
    text = json.dumps(canonical(detector), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
