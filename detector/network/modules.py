"""Layers as `nn.Module`s."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.architecture.layers import (
    AvgPool,
    Chain,
    Conv,
    CustomLayer,
    Fusion,
    Layer,
    MaxPool,
    Norm,
    Residual,
    Scale,
)
from detector.gpu.kernels import kernels_run

LEAKY_SLOPE = 0.1  # RetinaFace's
FUSION_WEIGHT = 0.5  # at first
FUSION_EPS = 1e-4

_ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "hard_swish": lambda: nn.Hardswish(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
}


class ConvUnit(nn.Sequential):
    """Convolution, then normalisation and activation where the layer has them."""

    def __init__(self, layer: Conv):
        super().__init__()
        self.conv = nn.Conv2d(
            layer.cin,
            layer.cout,
            layer.kernel,
            layer.stride,
            layer.kernel // 2,
            groups=layer.groups,
            bias=layer.bias,
        )
        if layer.norm:
            self.norm = (
                nn.BatchNorm2d(layer.cout)
                if layer.norm_groups is None
                else nn.GroupNorm(layer.norm_groups, layer.cout)
            )
        if layer.activation is not None:
            self.activation = _ACTIVATIONS[layer.activation]()
        self.strided_depthwise = layer.groups == layer.cin > 1 and layer.stride > 1
        self.strided_pointwise = layer.kernel == 1 and layer.groups == 1 and layer.stride > 1

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and kernels_run():
            return self._on_gpu(x)
        if self.strided_depthwise and x.device.type == "cpu":
            # oneDNN's bf16 backward pass of these is slow: float32 is 5 to 20 times as fast.
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        if self.strided_pointwise and self.training and x.device.type == "cpu":
            return self._on_kept_cells(x)
        return super().forward(x)

    def _on_kept_cells(self, x: Tensor) -> Tensor:
        """A strided 1×1 convolution as one without a stride. In the backward pass of the former,
        oneDNN crashes (SIGSEGV) where channels-last inputs have 8 channels or fewer (torch 2.15 on
        CPUs with AVX-512)."""
        conv, step = self.conv, self.conv.stride[0]
        x = F.conv2d(x[:, :, ::step, ::step], conv.weight, conv.bias)
        for module in list(self)[1:]:
            x = module(x)
        return x

    def _on_gpu(self, x: Tensor) -> Tensor:
        """By our own kernels where cuDNN's are slow or are compiled for each new image size."""
        from detector.gpu import depthwise, fused_norm

        conv = self.conv
        if depthwise.usable(x, conv):
            x = depthwise.depthwise(x, conv)
        elif not torch.is_grad_enabled() and _is_pointwise(conv):
            x = F.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias)
            x = x.permute(0, 3, 1, 2)
        else:
            x = conv(x)
        norm, activation = getattr(self, "norm", None), getattr(self, "activation", None)
        if norm is not None and fused_norm.usable(x, norm, activation):
            return fused_norm.fused_batch_norm(x, norm, activation)
        x = x if norm is None else norm(x)
        return x if activation is None else activation(x)


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1


class ResidualUnit(nn.Module):
    def __init__(self, layer: Residual):
        super().__init__()
        self.body = build(layer.body)
        self.shortcut = nn.Identity() if layer.shortcut is None else build(layer.shortcut)
        self.activation = (
            nn.Identity() if layer.activation is None else _ACTIVATIONS[layer.activation]()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class ScaleUnit(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class FusionUnit(nn.Module):
    """The weights are divided by their sum twice, as in EResFD's code, both times with ε."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), FUSION_WEIGHT))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        weight = F.relu(self.weight)
        weight = weight / (weight.sum() + FUSION_EPS)
        weight = weight / (weight.sum() + FUSION_EPS)
        return weight[0] * x + weight[1] * other


def build(layer: Layer) -> nn.Module:
    """The module of a layer, which maps [B, cin, H, W] to [B, cout, *layer.out((H, W))]."""
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
        case Fusion():
            return FusionUnit()
        case Chain():
            return nn.Sequential(*map(build, layer.layers))
        case Residual():
            return ResidualUnit(layer)
        case CustomLayer():
            return layer.module()
    raise TypeError(f"no module for {layer}")
