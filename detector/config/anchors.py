"""Anchors of a design: named sets of sizes, sizes, or shapes. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from detector.base.errors import ConfigError
from detector.base.struct import Struct
from detector.config.checks import one_of, positive

LEVELS = (2, 3, 4, 5, 6, 7)  # pyramid level k has stride 2**k pixels

# Square anchor sizes in pixels of the network's input, by pyramid level, and the aspect ratios
# (height / width) of each size.
_THIRDS = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
ANCHOR_SETS: dict[str, tuple[dict[int, tuple[float, ...]], tuple[float, ...]]] = {
    # RetinaFace: 2 sizes per level, 4 times as large from level to level.
    "retinaface": (
        {2: (4, 8), 3: (16, 32), 4: (64, 128), 5: (256, 512), 6: (1024, 2048), 7: (4096, 8192)},
        (1.0,),
    ),
    # The same at the height / width of a typical WIDER face.
    "retinaface_tall": (
        {2: (4, 8), 3: (16, 32), 4: (64, 128), 5: (256, 512), 6: (1024, 2048), 7: (4096, 8192)},
        (1.25,),
    ),
    # One size per level, 4 strides wide: the cheapest head.
    "single": ({k: (4.0 * 2**k,) for k in LEVELS}, (1.0,)),
    # EResFD's: the same widths, and 1.25 times as high.
    "single_tall": ({k: (4.0 * 2**k * 1.25**0.5,) for k in LEVELS}, (1.25,)),
    # The cell itself: for heads that predict from points.
    "cell": ({k: (1.0 * 2**k,) for k in LEVELS}, (1.0,)),
    # Two sizes per level, half an octave apart, from 2 strides up.
    "octave2": ({k: (2.0 * 2**k, 2.0 * 2**k * 2**0.5) for k in LEVELS}, (1.0,)),
    # Three sizes per level, a third of an octave apart (RetinaNet's spacing).
    "octave3": ({k: tuple(2.0 * 2**k * t for t in _THIRDS) for k in LEVELS}, (1.0,)),
    # The same with upright boxes as well: 6 anchors per cell.
    "octave3_ratios": ({k: tuple(2.0 * 2**k * t for t in _THIRDS) for k in LEVELS}, (1.0, 2.0)),
}


@dataclass(frozen=True, kw_only=True)
class Anchors(Struct):
    name: str | None = None
    """A set of ANCHOR_SETS; None means that `sizes` or `shapes` are given."""
    sizes: tuple[tuple[float, ...], ...] | None = None
    """Sizes in input pixels, a tuple per level of the neck."""
    ratios: tuple[float, ...] = (1.0,)
    """Height / width, with `sizes`: size s and ratio r give an anchor of s/√r × s·√r."""
    shapes: tuple[tuple[tuple[float, float], ...], ...] | None = None
    """(width, height) of each anchor in input pixels, a tuple of pairs per level of the neck."""
    offset: float = 0.5
    """Centre of an anchor in its cell: 0.5 is the middle, 0 the top left corner."""

    def __post_init__(self):
        if sum(given is not None for given in (self.name, self.sizes, self.shapes)) != 1:
            raise ConfigError(
                f"anchors: give exactly one of name (of {', '.join(ANCHOR_SETS)}), sizes and shapes"
            )
        if not 0 <= self.offset < 1:
            raise ConfigError(f"anchors.offset: {self.offset} must be at least 0 and below 1")
        if self.name is not None:
            one_of("anchors.name", self.name, tuple(ANCHOR_SETS))
        if self.sizes is None and self.ratios != (1.0,):
            raise ConfigError(
                "anchors.ratios: only for sizes; named sets and shapes have their own, leave it out"
            )
        for size in (s for level in self.sizes or () for s in level):
            positive("anchors.sizes", size)
        for side in (s for level in self.shapes or () for shape in level for s in shape):
            positive("anchors.shapes", side)
        for key in ("sizes", "shapes"):
            if not all(getattr(self, key) or (True,)):
                raise ConfigError(f"anchors.{key}: a level has none; give each at least one")
        for ratio in self.ratios:
            positive("anchors.ratios", ratio)
        if not self.ratios:
            raise ConfigError("anchors.ratios: empty; give at least one, such as [1.0]")
