"""YuNet (Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector"), as in
ShiqiYu/libfacedetection.train."""

from __future__ import annotations

from detector.architecture.layers import Conv, Layer, MaxPool, unit
from detector.config.detector import Backbone


def stages(config: Backbone, top: int) -> list[list[Layer]]:
    """Six rows of units; each level but the stem's begins with a 2×2 max pool.

    Only the last unit of a row changes the number of channels.
    """
    act, channels = config.activation, config.stem
    result: list[list[Layer]] = [[Conv(3, channels, 3, stride=2, bias=True, activation=act)]]
    for level, width, depth in zip(config.spec.levels, config.widths, config.depths):
        if level > top:
            break
        if level > len(result):
            result.append([MaxPool(channels, kernel=2)])
        result[-1] += [unit(channels, channels, act) for _ in range(depth - 1)]
        result[-1].append(unit(channels, width, act))
        channels = width
    return result
