"""EResFD's backbone (Jeong et al. 2024, "EResFD: Rediscovery of the Effectiveness of Standard
Convolution for Lightweight Face Detection"): full convolutions of few channels, down to a stride of
128. As in clovaai/EResFD."""

from __future__ import annotations

from detector.architecture.layers import Chain, Conv, Layer, Residual
from detector.config.detector import Backbone


def stages(config: Backbone, top: int) -> list[list[Layer]]:
    """A row of residual blocks per level from 2 on; the stem's first convolution has a stride of 4,
    so that level 1 has no layers."""
    act, stem, channels = config.activation, config.stem, config.widths[0]
    result: list[list[Layer]] = [
        [],
        [
            Conv(3, stem, 5, stride=4),
            Conv(stem, stem, 3, activation=act),
            Conv(stem, channels, 3, activation=act),
        ],
    ]
    for level, width, depth in zip(config.spec.levels, config.widths, config.depths):
        if level > top:
            break
        if level > len(result):
            result.append([])
        for block in range(depth):
            stride = 2 if level > 2 and block == 0 else 1
            result[-1].append(_block(channels, width, stride, act))
            channels = width
    return result


def _block(cin: int, cout: int, stride: int, activation: str) -> Residual:
    """Without an activation after the sum."""
    body = Chain((Conv(cin, cout, 3, stride, activation=activation), Conv(cout, cout, 3)))
    shortcut = None if stride == 1 and cin == cout else Conv(cin, cout, stride=stride)
    return Residual(body, shortcut)
