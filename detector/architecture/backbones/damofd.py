"""DamoFD's backbones (Bai et al. 2023, "DamoFD: Digging into Backbone Design on Face Detection"):
residual blocks whose kind, kernel size and middle width each row has for itself. As in
ly19965/DamoFD."""

from __future__ import annotations

from detector.architecture.layers import Chain, Conv, Layer, Residual
from detector.config.detector import Backbone


def stages(config: Backbone, top: int) -> list[list[Layer]]:
    """Stem (level 1), then a row per level, whose first block has stride 2."""
    act, channels = config.activation, config.stem
    result: list[list[Layer]] = [
        [
            Conv(3 if i == 0 else channels, channels, 3, stride=1 if i else 2, activation=act)
            for i in range(config.stem_depth)
        ]
    ]
    for row, level in enumerate(config.spec.levels):
        if level > top:
            break
        result.append([])
        for block in range(config.depths[row]):
            result[-1].append(_block(config, row, block, channels))
            channels = result[-1][-1].cout
    return result


def _block(config: Backbone, row: int, block: int, cin: int) -> Residual:
    assert config.blocks and config.kernels and config.mid_widths  # checked by Backbone
    kind, kernel, act = config.blocks[row], config.kernels[row], config.activation
    mid, cout = config.mid_widths[row], config.widths[row]
    stride = 1 if block else 2
    if kind == "inverted" and (config.depths[row] - block) % 2 == 0:
        cout = mid
    layers: tuple[Layer, ...]
    if kind == "basic":
        layers = Conv(cin, mid, kernel, stride, activation=act), Conv(mid, cout, kernel)
    else:
        # Inverted: each block expands to the channels of its own output.
        hidden, groups = (mid, 1) if kind == "bottleneck" else (cout, cout)
        layers = (
            Conv(cin, hidden, activation=act),
            Conv(hidden, hidden, kernel, stride, groups, activation=act),
            Conv(hidden, cout),
        )
    shortcut = None
    if stride != 1 or cin != cout:
        shortcut = Conv(cin, cout, stride=stride, bias=True)
    return Residual(Chain(layers), shortcut, act)
