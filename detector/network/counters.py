"""Parameters and MACs counted on the built network, by thop and by torch's own counter."""

from __future__ import annotations

import warnings

from detector.architecture.layers import Size
from detector.config.detector import Detector


def thop_cost(config: Detector, size: Size = (640, 640)) -> tuple[int, int]:
    """(parameters, MACs) of a built detector, MACs by thop. Takes about 0.1 s.

    thop leaves buffers on the modules, so it gets its own detector, on the meta device.
    """
    return _thop(config, size)[:2]


def counters(config: Detector, size: Size = (640, 640)) -> dict[str, tuple[int, int]]:
    """MACs of each type of module, such as Conv2d, by thop and by torch's own FlopCounterMode (its
    FLOPs are 2 × MACs). What torch counts outside of these modules is `other`.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from detector.network.model import blank_detector

    _, _, thop_leaves = _thop(config, size)
    model = blank_detector(config).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.empty(1, 3, *size, device="meta"))
    flops = {name: sum(by_op.values()) for name, by_op in counter.get_flop_counts().items()}
    kinds: dict[str, tuple[int, int]] = {}
    root, rest = type(model).__name__, flops.get("Global", 0)
    for name, module in model.named_modules():
        if any(True for _ in module.children()):
            continue
        own = flops.get(f"{root}.{name}", 0)
        rest -= own
        kind = type(module).__name__
        thop_sum, torch_sum = kinds.get(kind, (0, 0))
        kinds[kind] = thop_sum + thop_leaves.get(name, 0), torch_sum + own // 2
    return kinds | ({"other": (0, rest // 2)} if rest else {})


def _thop(config: Detector, size: Size) -> tuple[int, int, dict[str, int]]:
    """Parameters, MACs, and MACs of each module without children."""
    import torch

    from detector.network.model import blank_detector

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports distutils
        import thop

        model = blank_detector(config)
        images = torch.empty(1, 3, *size, device="meta")
        macs, _, tree = thop.profile(model, inputs=(images,), verbose=False, ret_layer_info=True)

    def leaves(children: dict, prefix: str = ""):
        for name, (own, _, below) in children.items():
            if below:
                yield from leaves(below, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", int(own)

    return sum(p.numel() for p in model.parameters()), int(macs), dict(leaves(tree))
