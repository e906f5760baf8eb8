"""Parameters and multiply-accumulates (MACs) of a design from its configuration. Imports no torch.

Exactly equal to `sum(p.numel())` of the built detector and to thop 0.1.1, whose convention is
stated in layers.py. `python -m detector.cost` prints both.
"""

from __future__ import annotations

from functools import lru_cache

from detector.architecture.layers import Conv, Norm, Size, level_size
from detector.architecture.plan import plan
from detector.config.detector import Detector


@lru_cache(maxsize=4096)
def cost(config: Detector, size: Size = (640, 640)) -> tuple[int, int]:
    """(parameters, MACs) for one image of `size` (height, width) px."""
    costs = layer_costs(config, size)
    return sum(params for _, params, _ in costs), sum(macs for _, _, macs in costs)


def layer_costs(config: Detector, size: Size = (640, 640)) -> list[tuple[str, int, int]]:
    """(module name, parameters, MACs) of each layer, a convolution with its norm and activation.

    A module that several levels share is listed once, with the MACs of all its uses.
    """
    params: dict[str, int] = {}
    macs: dict[str, int] = {}
    for name, layer, level in plan(config).uses():
        for leaf_name, leaf, leaf_size in layer.leaves(level_size(size, level), name):
            params[leaf_name] = leaf.params
            macs[leaf_name] = macs.get(leaf_name, 0) + leaf.macs(leaf_size)
    return [(name, params[name], macs[name]) for name in params]


def fewest_normalized_cells(config: Detector, size: Size) -> int:
    """Cells of the smallest map that passes through batch normalisation, for an image of `size`
    (height, width) px; without what a plugin's layer does by itself."""
    outputs = (
        leaf.out(leaf_size)
        for name, layer, level in plan(config).uses()
        for _, leaf, leaf_size in layer.leaves(level_size(size, level), name)
        if isinstance(leaf, Norm) or (isinstance(leaf, Conv) and leaf.norm and not leaf.norm_groups)
    )
    return min((height * width for height, width in outputs), default=size[0] * size[1])
