"""Layers made into `nn.Module`s, and how their weights start."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from detector.layers import AvgPool, Chain, Conv, Layer, MaxPool, Norm, Residual, Scale

LEAKY_SLOPE = 0.1  # RetinaFace's
FUSES_NORMS = find_spec("triton") is not None and os.environ.get("RETINA_FUSED", "1") == "1"

_ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
}


class ConvUnit(nn.Sequential):
    """Convolution, then normalisation and activation where the layer has them."""

    def __init__(self, layer: Conv):
        super().__init__()
        self.conv = nn.Conv2d(layer.cin, layer.cout, layer.kernel, layer.stride,
                              layer.kernel // 2, groups=layer.groups, bias=layer.bias)
        if layer.norm:
            self.norm = (nn.BatchNorm2d(layer.cout) if layer.norm_groups is None
                         else nn.GroupNorm(layer.norm_groups, layer.cout))
        if layer.activation is not None:
            self.activation = _ACTIVATIONS[layer.activation]()
        self.strided_depthwise = layer.groups == layer.cin > 1 and layer.stride > 1

    def forward(self, x: Tensor) -> Tensor:
        if self.strided_depthwise and x.device.type == "cpu":
            # oneDNN has no fast bf16 backward for these: float32 is 5 to 20 times as fast.
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        if x.is_cuda and self.training and FUSES_NORMS and hasattr(self, "norm"):
            return self._fused(self.conv(x))
        return super().forward(x)

    def _fused(self, x: Tensor) -> Tensor:
        """Normalisation and activation in one on a GPU, where that can be."""
        from detector.fused_norm import fused_batch_norm, usable

        activation = getattr(self, "activation", None)
        if usable(x, self.norm, activation):
            return fused_batch_norm(x, self.norm, activation)
        x = self.norm(x)
        return x if activation is None else activation(x)


class ResidualUnit(nn.Module):
    def __init__(self, layer: Residual):
        super().__init__()
        self.body = build(layer.body)
        self.shortcut = nn.Identity() if layer.shortcut is None else build(layer.shortcut)
        self.activation = (nn.Identity() if layer.activation is None
                           else _ACTIVATIONS[layer.activation]())

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class ScaleUnit(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def build(layer: Layer) -> nn.Module:
    """The module of a layer; maps [B, cin, H, W] to [B, cout, *layer.out((H, W))]."""
    match layer:
        case Conv():
            return ConvUnit(layer)
        case MaxPool():
            if layer.kernel % 2:
                return nn.MaxPool2d(layer.kernel, layer.stride, layer.kernel // 2)
            return nn.MaxPool2d(layer.kernel, layer.stride, ceil_mode=True)
        case AvgPool():
            return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        case Norm():
            return nn.BatchNorm2d(layer.cout)
        case Scale():
            return ScaleUnit()
        case Chain():
            return nn.Sequential(*map(build, layer.layers))
        case Residual():
            return ResidualUnit(layer)
    raise TypeError(f"no module for {layer}")


def initialise(model: nn.Module, generator: torch.Generator, initialization: str = "he") -> None:
    """Weights to start training from: unit normalisation and factors, and convolutions over their
    fan-in (right for depthwise ones too): by `he` normal with zero biases (He et al. 2015), by
    `torch` uniform within ±1/√fan-in, biases too, as `nn.Conv2d.reset_parameters` draws them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and initialization == "torch":
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            module.reset_parameters()
        elif isinstance(module, ScaleUnit):
            nn.init.ones_(module.factor)
