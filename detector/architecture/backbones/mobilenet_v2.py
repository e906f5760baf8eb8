"""MobileNetV2 (Sandler et al. 2018): inverted residuals, as in torchvision's
`mobilenet_v2.features` without its last 1×1 convolution."""

from __future__ import annotations

from detector.architecture.layers import Chain, Conv, Layer, Residual
from detector.config.detector import Backbone


def stages(config: Backbone, top: int) -> list[list[Layer]]:
    """Seven rows; the first row of a level has stride 2 (of level 1, the stem has).

    The first row has no expansion, the last one may have its own.
    """
    channels = config.stem
    result: list[list[Layer]] = [[Conv(3, channels, 3, stride=2, activation=config.activation)]]
    levels = config.spec.levels
    expansions = [1, *[config.expansion] * (len(levels) - 1)]
    expansions[-1] = config.last_expansion or config.expansion
    for level, width, depth, expansion in zip(levels, config.widths, config.depths, expansions):
        if level > top:
            break
        new_level = level > len(result)
        if new_level:
            result.append([])
        for block in range(depth):
            stride = 2 if new_level and block == 0 else 1
            result[-1].append(
                _inverted_residual(channels, width, stride, expansion, config.activation)
            )
            channels = width
    return result


def _inverted_residual(cin: int, cout: int, stride: int, expansion: int, act: str) -> Layer:
    hidden = cin * expansion
    body = Chain(
        (
            *([Conv(cin, hidden, activation=act)] if expansion != 1 else []),
            Conv(hidden, hidden, 3, stride, groups=hidden, activation=act),
            Conv(hidden, cout),
        )
    )
    return Residual(body) if stride == 1 and cin == cout else body
