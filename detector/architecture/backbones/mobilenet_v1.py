"""MobileNetV1 (Howard et al. 2017): depthwise 3×3 and pointwise 1×1 convolutions in turn."""

from __future__ import annotations

from detector.architecture.layers import Conv, Layer, separable
from detector.config.detector import BACKBONE_ROWS, Backbone


def stages(config: Backbone, top: int) -> list[list[Layer]]:
    """Rows at strides 2, 4, 8, 16, 32; the stem does the halving of the first."""
    act = config.activation
    channels = config.stem
    result: list[list[Layer]] = [[Conv(3, channels, 3, stride=2, activation=act)]]
    rows = zip(BACKBONE_ROWS["mobilenet_v1"], config.widths, config.depths)
    for level, width, depth in rows:
        if level > top:
            break
        if level > 1:
            result.append([])
        for block in range(depth):
            stride = 2 if level > 1 and block == 0 else 1
            result[-1].append(separable(channels, width, stride, act))
            channels = width
    return result
