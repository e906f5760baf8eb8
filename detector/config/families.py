"""The published backbone of each kind, and designs derived from it by multipliers. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from detector.base.errors import ConfigError
from detector.config.detector import BACKBONE_ROWS


@dataclass(frozen=True)
class Family:
    """A backbone as its paper has it, at width ×1."""

    short: str
    """For names of designs."""
    stem: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]


FAMILIES: dict[tuple[str, str], Family] = {
    ("mobilenet_v1", "basic"): Family(
        "mnv1", 32, (64, 128, 256, 512, 1024), (1, 2, 2, 6, 2)
    ),  # Howard et al. 2017
    ("mobilenet_v2", "basic"): Family(
        "mnv2", 32, (16, 24, 32, 64, 96, 160, 320), (1, 2, 3, 4, 3, 3, 1)
    ),  # Sandler et al. 2018
    ("mobilenet_v2_s16", "basic"): Family(  # OpenVINO's tiny SSD
        "mnv2s16", 32, (16, 24, 32, 64, 96, 160, 480), (1, 2, 3, 4, 3, 3, 1)
    ),
    ("yunet", "basic"): Family(
        "yunet", 16, (16, 64, 64, 64, 64, 64), (1, 2, 2, 2, 2, 2)
    ),  # YuNet-n, Wu et al. 2023
    ("resnet", "basic"): Family(
        "res", 64, (64, 128, 256, 512), (2, 2, 2, 2)
    ),  # ResNet-18, He et al. 2015
    ("resnet", "bottleneck"): Family("resb", 64, (64, 128, 256, 512), (3, 4, 6, 3)),  # ResNet-50
}


def family(kind: str, block: str = "basic") -> Family:
    """The published backbone; only resnet has blocks to choose from.

    Raises:
        ConfigError: an unknown kind or block.
    """
    if kind not in BACKBONE_ROWS:
        raise ConfigError(f"backbone.kind: {kind!r} is not one of {', '.join(BACKBONE_ROWS)}")
    found = FAMILIES.get((kind, block if kind == "resnet" else "basic"))
    if found is None:
        raise ConfigError(f"backbone.block: {block!r} is not one of basic, bottleneck")
    return found


def scaled(channels: float) -> int:
    """The nearest multiple of 8, at least 8: vector units and tensor cores work in eights."""
    return max(8, 8 * int(channels / 8 + 0.5))


def level_rows(kind: str, level: int) -> tuple[int, ...]:
    """Indices of the rows of blocks that work at a pyramid level.

    Raises:
        ConfigError: the kind has none there.
    """
    rows = tuple(i for i, row in enumerate(BACKBONE_ROWS[kind]) if row == level)
    if not rows:
        raise ConfigError(
            f"{kind} has no blocks at level {level}; its levels are "
            f"{', '.join(map(str, sorted(set(BACKBONE_ROWS[kind]))))}"
        )
    return rows


def spread(blocks: int, published: tuple[int, ...]) -> tuple[int, ...]:
    """`blocks` over the rows of a level, nearly as the paper shares them out; at least one each.

    Raises:
        ConfigError: fewer blocks than rows.
    """
    if blocks < len(published):
        raise ConfigError(
            f"{blocks} blocks; this level has {len(published)} rows of blocks, give "
            "at least one for each"
        )
    result = [1] * len(published)
    for _ in range(blocks - len(published)):  # to the row that lacks most of its share
        lack = [p / sum(published) - r / blocks for p, r in zip(published, result)]
        result[lack.index(max(lack))] += 1
    return tuple(result)
