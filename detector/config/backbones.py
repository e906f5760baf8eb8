"""The kinds of backbones in one table. Imports no torch.

A new kind is a row of BACKBONES and a file in detector/architecture/backbones with a function
`stages(config: Backbone, top: int) -> list[list[Layer]]`, as the files there have it; or a function
of a plugin (`register_backbone` in detector/architecture/custom.py). ImageNet weights are an
optional row in detector/weights/pretrained.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detector.base.errors import ConfigError
from detector.config.limits import MAX_BLOCKS


@dataclass(frozen=True, kw_only=True)
class Published:
    """A backbone as published, at width ×1."""

    short: str
    """Its name in names of designs."""
    stem: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    out_factor: int = 1
    """Output channels of a block over its width."""
    blocks: tuple[str, ...] | None = None
    kernels: tuple[int, ...] | None = None
    mid_widths: tuple[int, ...] | None = None
    stem_depth: int = 1


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    layers: str
    """The module in detector/architecture/backbones with its layers; of a plugin's kind its own
    name. Weights can be transferred between kinds with the same layers."""
    levels: tuple[int, ...]
    """Pyramid level (log2 of the stride) of each row of blocks. The output of the last row of a
    level is its feature map."""
    published: dict[str, Published]
    """By `Backbone.block`; only "basic" without that option."""
    options: tuple[str, ...] = ()
    """Those of OPTIONS that apply."""
    widening_block: Literal["first", "last"] = "first"
    """Which block of a row changes the number of channels."""
    top: int = 5
    """Coarsest pyramid level that a neck takes from it; an FPN makes coarser ones by itself."""


ROW_OPTIONS = ("blocks", "kernels", "mid_widths")
"""Those of OPTIONS that hold a value for each row of blocks."""
OPTIONS = ("block", "variant", "expansion", "last_expansion", "stem_depth", *ROW_OPTIONS)
"""Fields of `Backbone` that only apply to some kinds."""
ROW_BLOCKS = ("basic", "bottleneck", "inverted")
"""Values of `Backbone.blocks`."""

BACKBONES: dict[str, BackboneSpec] = {
    # Howard et al. 2017
    "mobilenet_v1": BackboneSpec(
        layers="mobilenet_v1",
        levels=(1, 2, 3, 4, 5),
        published={
            "basic": Published(
                short="mnv1",
                stem=32,
                widths=(64, 128, 256, 512, 1024),
                depths=(1, 2, 2, 6, 2),
            )
        },
    ),
    # Sandler et al. 2018
    "mobilenet_v2": BackboneSpec(
        layers="mobilenet_v2",
        levels=(1, 2, 3, 4, 4, 5, 5),
        published={
            "basic": Published(
                short="mnv2",
                stem=32,
                widths=(16, 24, 32, 64, 96, 160, 320),
                depths=(1, 2, 3, 4, 3, 3, 1),
            )
        },
        options=("expansion", "last_expansion"),
    ),
    # He et al. 2015: ResNet-18 and ResNet-50
    "resnet": BackboneSpec(
        layers="resnet",
        levels=(2, 3, 4, 5),
        published={
            "basic": Published(
                short="res", stem=64, widths=(64, 128, 256, 512), depths=(2, 2, 2, 2)
            ),
            "bottleneck": Published(
                short="resb",
                stem=64,
                widths=(64, 128, 256, 512),
                depths=(3, 4, 6, 3),
                out_factor=4,
            ),
        },
        options=("block", "variant"),
    ),
    # OpenVINO's tiny SSD: MobileNetV2 that is never coarser than stride 16
    "mobilenet_v2_s16": BackboneSpec(
        layers="mobilenet_v2",
        levels=(1, 2, 3, 4, 4, 4, 4),
        published={
            "basic": Published(
                short="mnv2s16",
                stem=32,
                widths=(16, 24, 32, 64, 96, 160, 480),
                depths=(1, 2, 3, 4, 3, 3, 1),
            )
        },
        options=("expansion", "last_expansion"),
    ),
    # YuNet-n, Wu et al. 2023
    "yunet": BackboneSpec(
        layers="yunet",
        levels=(1, 2, 2, 3, 4, 5),
        published={
            "basic": Published(
                short="yunet",
                stem=16,
                widths=(16, 64, 64, 64, 64, 64),
                depths=(1, 2, 2, 2, 2, 2),
            )
        },
        widening_block="last",
    ),
    # DamoFD-0.5G, Bai et al. 2023
    "damofd": BackboneSpec(
        layers="damofd",
        levels=(2, 3, 4, 5),
        published={
            "basic": Published(
                short="damofd",
                stem=32,
                widths=(32, 64, 120, 160),
                depths=(2, 2, 4, 2),
                blocks=("inverted",) * 4,
                kernels=(3, 7, 7, 5),
                mid_widths=(8, 40, 40, 120),
            )
        },
        options=("stem_depth", *ROW_OPTIONS),
    ),
    # EResFD's, Jeong et al. 2024
    "eresnet": BackboneSpec(
        layers="eresnet",
        levels=(2, 3, 4, 5, 6, 7),
        published={
            "basic": Published(
                short="eres",
                stem=8,
                widths=(16, 16, 16, 16, 16, 16),
                depths=(1, 3, 3, 3, 2, 2),
            )
        },
        top=7,
    ),
}

BLOCKS = tuple(dict.fromkeys(block for spec in BACKBONES.values() for block in spec.published))


def published_backbone(kind: str, block: str = "basic") -> Published:
    """The published backbone of a kind; `block` is ignored for kinds without that option.

    Raises:
        ConfigError: an unknown kind or block.
    """
    if not isinstance(kind, str) or kind not in BACKBONES:
        known = f"{', '.join(BACKBONES)} (or of a plugin: --plugin FILE)"
        raise ConfigError(f"backbone.kind: {kind!r} is not one of {known}")
    blocks = BACKBONES[kind].published
    block = block if "block" in BACKBONES[kind].options else "basic"
    if not isinstance(block, str) or block not in blocks:
        raise ConfigError(f"backbone.block: {block!r} is not one of {', '.join(blocks)}")
    return blocks[block]


def level_rows(kind: str, level: int) -> tuple[int, ...]:
    """Indices of the rows of blocks of a pyramid level.

    Raises:
        ConfigError: the kind has none at that level.
    """
    levels = BACKBONES[kind].levels
    if level not in levels:
        raise ConfigError(
            f"{kind} has no blocks at level {level}; its levels are "
            f"{', '.join(map(str, sorted(set(levels))))}"
        )
    return tuple(row for row, own in enumerate(levels) if own == level)


def scaled(channels: float) -> int:
    """The nearest multiple of 8, at least 8: vector units and tensor cores process eights."""
    return max(8, 8 * int(channels / 8 + 0.5))


def spread(blocks: int, depths: tuple[int, ...]) -> tuple[int, ...]:
    """Distribute `blocks` over the rows of a level, nearly in proportion to the published `depths`;
    at least one each.

    Raises:
        ConfigError: no whole number, fewer blocks than rows, or far too many.
    """
    if isinstance(blocks, bool) or not isinstance(blocks, int):
        raise ConfigError(f"{blocks!r} must be a whole number of blocks, such as 2")
    if blocks > MAX_BLOCKS:
        raise ConfigError(f"{blocks} blocks; must be at most {MAX_BLOCKS:,}")
    if blocks < len(depths):
        raise ConfigError(
            f"{blocks} blocks; this level has {len(depths)} rows of blocks, give "
            "at least one for each"
        )
    result = [1] * len(depths)
    for _ in range(blocks - len(depths)):  # to the row furthest below its share
        lacking = [p / sum(depths) - r / blocks for p, r in zip(depths, result)]
        result[lacking.index(max(lacking))] += 1
    return tuple(result)
