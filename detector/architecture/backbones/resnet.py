"""ResNet (He et al. 2015) with basic or bottleneck blocks, as in torchvision: a bottleneck has its
stride in the 3×3 convolution. Variant d (He et al. 2018, "Bag of Tricks") as in SCRFD."""

from __future__ import annotations

from detector.architecture.layers import AvgPool, Chain, Conv, Layer, MaxPool, Residual
from detector.config.detector import Backbone


def stages(config: Backbone, top: int) -> list[list[Layer]]:
    """Stem (level 1), max pool and first row (level 2), then a row per level."""
    channels = config.stem
    result: list[list[Layer]] = [_stem(config)]
    for level, width, depth in zip(config.spec.levels, config.widths, config.depths):
        if level > top:
            break
        pool = MaxPool(channels, kernel=2 if config.variant == "d" else 3)
        result.append([pool] if level == 2 else [])
        for block in range(depth):
            stride = 2 if level > 2 and block == 0 else 1
            result[-1].append(_block(config, channels, width, stride))
            channels = result[-1][-1].cout
    return result


def _stem(config: Backbone) -> list[Layer]:
    width, act = config.stem, config.activation
    if config.variant == "d":
        return [
            Conv(3, width // 2, 3, stride=2, activation=act),
            Conv(width // 2, width // 2, 3, activation=act),
            Conv(width // 2, width, 3, activation=act),
        ]
    return [Conv(3, width, 7, stride=2, activation=act)]


def _block(config: Backbone, cin: int, width: int, stride: int) -> Residual:
    act = config.activation
    if config.block == "bottleneck":
        cout = 4 * width
        body = Chain(
            (
                Conv(cin, width, activation=act),
                Conv(width, width, 3, stride, activation=act),
                Conv(width, cout),
            )
        )
    else:
        cout = width
        body = Chain((Conv(cin, width, 3, stride, activation=act), Conv(width, width, 3)))
    shortcut: Conv | Chain | None = None
    if stride != 1 or cin != cout:
        shortcut = Conv(cin, cout, stride=stride)
    if config.variant == "d" and stride != 1:
        shortcut = Chain((AvgPool(cin), Conv(cin, cout)))
    return Residual(body, shortcut, act)
