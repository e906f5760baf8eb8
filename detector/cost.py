"""Parameters and multiply-accumulates of a design from its configuration. Imports no torch.

Equal to `sum(p.numel())` of the built detector and to thop 0.1.1, digit by digit; `layers.py`
states the convention.
"""

from __future__ import annotations

import warnings

from detector.config import Detector
from detector.layers import Size, level_size
from detector.plan import plan


def cost(config: Detector, size: Size = (640, 640)) -> tuple[int, int]:
    """(parameters, MACs) for one image of `size` (height, width) px."""
    costs = layer_costs(config, size)
    return sum(params for _, params, _ in costs), sum(macs for _, _, macs in costs)


def layer_costs(config: Detector, size: Size = (640, 640)) -> list[tuple[str, int, int]]:
    """(module name, parameters, MACs) of each convolution with what follows it, and each pool.

    A module that several levels share comes once, with the MACs of all its uses.
    """
    params: dict[str, int] = {}
    macs: dict[str, int] = {}
    for name, layer, level in plan(config).uses():
        for leaf_name, leaf, leaf_size in layer.leaves(level_size(size, level), name):
            params[leaf_name] = leaf.params
            macs[leaf_name] = macs.get(leaf_name, 0) + leaf.macs(leaf_size)
    return [(name, params[name], macs[name]) for name in params]


def thop_cost(config: Detector, size: Size = (640, 640)) -> tuple[int, int]:
    """The same measured: parameters of a built detector, MACs by thop. Takes about 0.1 s.

    thop leaves buffers behind on the modules, so it gets a detector of its own, on the meta
    device.
    """
    import torch

    from detector.model import blank_detector

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports distutils
        import thop

        model = blank_detector(config)
        images = torch.empty(1, 3, *size, device="meta")
        macs, _ = thop.profile(model, inputs=(images,), verbose=False)
    return sum(p.numel() for p in model.parameters()), int(macs)
