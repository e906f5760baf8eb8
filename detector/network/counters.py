"""Parameters and MACs counted on the built network, by thop and by torch's own counter."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from detector.architecture.layers import Size
from detector.config.detector import Detector

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ThopProfile:
    """What thop itself says about a network."""

    params: int
    """As thop adds them up: without those of modules that it has no rule for."""
    macs: int
    without_rule: Mapping[str, int]
    """Type of each module with parameters that thop has no rule for, such as GroupNorm, → the
    number of these parameters."""
    text: str
    """The calls as in a Python session, with all that thop printed."""

    @property
    def all_params(self) -> int:
        """Parameters with those of the modules that thop has no rule for."""
        return self.params + sum(self.without_rule.values())


def thop_profile(model: nn.Module, size: Size = (640, 640)) -> ThopProfile:
    """Let thop count a network with its weights, on the CPU. Takes a forward pass.

    Args:
        size: (height, width) px of the image.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports distutils
        import thop
        from thop.profile import register_hooks

    counted = copy.deepcopy(model).cpu().eval()  # thop leaves buffers on the modules
    images = torch.zeros(1, 3, *size)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        macs, params = thop.profile(counted, inputs=(images,))
    short = thop.clever_format([macs, params], "%.3f")
    without_rule: Counter[str] = Counter()
    for module in model.modules():
        if type(module) not in register_hooks:
            own = sum(p.numel() for p in module.parameters(recurse=False))
            without_rule[type(module).__name__] += own
    text = (
        f"thop {version('thop')}, torch {torch.__version__}\n\n"
        f">>> images = torch.zeros{tuple(images.shape)}\n"
        ">>> macs, params = thop.profile(model, inputs=(images,))\n"
        f"{printed.getvalue().rstrip()}\n"
        f">>> macs, params\n{(macs, params)}\n"
        f'>>> thop.clever_format([macs, params], "%.3f")\n{short}\n'
    )
    return ThopProfile(
        params=int(params), macs=int(macs), without_rule=dict(+without_rule), text=text
    )


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
