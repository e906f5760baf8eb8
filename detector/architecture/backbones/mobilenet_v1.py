"""MobileNetV1 (Howard et al. 2017): alternating depthwise 3×3 and pointwise convolutions."""

from __future__ import annotations

from detector.architecture.layers import Conv, Layer, separable
from detector.config.detector import Backbone


def stages(config: Backbone, top: int) -> list[list[Layer]]:
    """Rows at strides 2, 4, 8, 16, 32; the stem has the stride of the first."""
    act = config.activation
    channels = config.stem
    result: list[list[Layer]] = [[Conv(3, channels, 3, stride=2, activation=act)]]
    for level, width, depth in zip(config.spec.levels, config.widths, config.depths):
        if level > top:
            break
        if level > 1:
            result.append([])
        for block in range(depth):
            stride = 2 if level > 1 and block == 0 else 1
            result[-1].append(separable(channels, width, stride, act))
            channels = width
    return result
