"""The layers of networks as plain data. Imports no torch.

A layer knows its channels, parameters and multiply-accumulates (MACs), and
detector/network/modules.py turns it into an `nn.Module`: what is counted is what is built.

MACs follow thop 0.1.1: a convolution counts its products (not its bias), batch normalisation 4 for
each element, average pooling 1 for each output element; group normalisation, activations, max
pooling, learnt scales and functional calls such as `F.interpolate` count 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import nn

Size = tuple[int, int]
"""(height, width) in cells."""


class _Single:
    """A layer that has no parts."""

    __slots__ = ()

    def leaves(self, size: Size, name: str) -> Iterator[Leaf]:
        yield name, cast(Part, self), size


class _SameSize(_Single):
    """Its output has the size of its input, and no MACs unless it says so."""

    __slots__ = ()

    def macs(self, size: Size) -> int:
        return 0

    def out(self, size: Size) -> Size:
        return size


@dataclass(frozen=True, slots=True)
class Conv(_Single):
    """A convolution with padding kernel // 2, then normalisation, then an activation."""

    cin: int
    cout: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = True
    activation: str | None = None
    norm_groups: int | None = None
    """Groups of group normalisation; None means batch normalisation."""

    @property
    def params(self) -> int:
        weights = self.cout * (self.cin // self.groups) * self.kernel**2
        return weights + self.cout * (self.bias + 2 * self.norm)

    def macs(self, size: Size) -> int:
        height, width = self.out(size)
        products = (self.cin // self.groups) * self.kernel**2
        counted_norm = self.norm and self.norm_groups is None
        return height * width * self.cout * (products + 4 * counted_norm)

    def out(self, size: Size) -> Size:
        return _reduced(size, self.stride)


@dataclass(frozen=True, slots=True)
class MaxPool(_Single):
    """Max pooling: 3×3 with padding 1, or 2×2, rounding up at odd sizes."""

    cout: int
    kernel: int = 3
    stride: int = 2

    params = 0

    def macs(self, size: Size) -> int:
        return 0

    def out(self, size: Size) -> Size:
        return _reduced(size, self.stride)


@dataclass(frozen=True, slots=True)
class AvgPool(_Single):
    """2×2 average pooling, rounding up at odd sizes."""

    cout: int

    params = 0

    def macs(self, size: Size) -> int:
        height, width = self.out(size)
        return height * width * self.cout

    def out(self, size: Size) -> Size:
        return _reduced(size, 2)


@dataclass(frozen=True, slots=True)
class Norm(_SameSize):
    """Batch normalisation without a convolution."""

    cout: int

    @property
    def params(self) -> int:
        return 2 * self.cout

    def macs(self, size: Size) -> int:
        return 4 * size[0] * size[1] * self.cout


@dataclass(frozen=True, slots=True)
class Scale(_SameSize):
    """A learnt scalar that multiplies a feature map."""

    cout: int

    params = 1


@dataclass(frozen=True, slots=True)
class Fusion(_SameSize):
    """A mean of two maps with learnt weights of at least 0 (BiFPN's fast normalised fusion, Tan et
    al. 2020)."""

    cout: int

    params = 2


@dataclass(frozen=True, slots=True)
class Chain:
    """A sequence of layers, at least one."""

    layers: tuple[Layer, ...]

    @property
    def cout(self) -> int:
        return self.layers[-1].cout

    def out(self, size: Size) -> Size:
        for layer in self.layers:
            size = layer.out(size)
        return size

    def leaves(self, size: Size, name: str) -> Iterator[Leaf]:
        for index, layer in enumerate(self.layers):
            yield from layer.leaves(size, f"{name}.{index}")
            size = layer.out(size)


@dataclass(frozen=True, slots=True)
class Residual:
    """activation(body(x) + shortcut(x)); None means the identity."""

    body: Chain
    shortcut: Conv | Chain | None = None
    activation: str | None = None

    @property
    def cout(self) -> int:
        return self.body.cout

    def out(self, size: Size) -> Size:
        return self.body.out(size)

    def leaves(self, size: Size, name: str) -> Iterator[Leaf]:
        yield from self.body.leaves(size, f"{name}.body")
        if self.shortcut is not None:
            yield from self.shortcut.leaves(size, f"{name}.shortcut")


class _Branches:
    """A dataclass of convolutions on maps of one size, some of whose outputs are concatenated."""

    __slots__ = ()

    def out(self, size: Size) -> Size:
        return size

    def leaves(self, size: Size, name: str) -> Iterator[Leaf]:
        for part in fields(cast(SSH | Cascade, self)):
            yield f"{name}.{part.name}", getattr(self, part.name), size


@dataclass(frozen=True, slots=True)
class SSH(_Branches):
    """The context module of SSH (Najibi et al. 2017), as in RetinaFace: three concatenated branches
    of stacked 3×3 convolutions with receptive fields of 3×3 (half of the channels), 5×5 and 7×7 (a
    quarter each), of which the latter two share their first convolution. Ends with ReLU.
    """

    conv3: Conv
    conv5_1: Conv
    conv5_2: Conv
    conv7_2: Conv
    conv7_3: Conv

    @classmethod
    def of(cls, width: int, activation: str) -> SSH:
        half, quarter = width // 2, width // 4
        return cls(
            conv3=Conv(width, half, 3),
            conv5_1=Conv(width, quarter, 3, activation=activation),
            conv5_2=Conv(quarter, quarter, 3),
            conv7_2=Conv(quarter, quarter, 3, activation=activation),
            conv7_3=Conv(quarter, quarter, 3),
        )

    @property
    def cout(self) -> int:
        return self.conv3.cout + self.conv5_2.cout + self.conv7_3.cout


@dataclass(frozen=True, slots=True)
class Cascade(_Branches):
    """EResFD's cascade context module (Jeong et al. 2024): the branches of `SSH`, each of which
    begins with the output of the one before; every convolution ends with the activation."""

    conv3: Conv
    conv5_1: Conv
    conv5_2: Conv
    conv7_1: Conv
    conv7_2: Conv

    @classmethod
    def of(cls, width: int, activation: str) -> Cascade:
        half, quarter = width // 2, width // 4
        last = Conv(quarter, quarter, 3, activation=activation)
        return cls(
            conv3=Conv(width, half, 3, activation=activation),
            conv5_1=Conv(half, quarter, 3, activation=activation),
            conv5_2=last,
            conv7_1=last,
            conv7_2=last,
        )

    @property
    def cout(self) -> int:
        return self.conv3.cout + self.conv5_2.cout + self.conv7_2.cout


class CustomLayer(ABC):
    """A layer of a plugin: subclass it, as a frozen dataclass, with its module, and either with
    `leaves`, the built-in layers that it is made of, or with its own counts."""

    @property
    @abstractmethod
    def cout(self) -> int:
        """Output channels."""

    @property
    def params(self) -> int:
        """Parameters of `module()`."""
        raise NotImplementedError(f"params of {type(self).__name__}, which has no leaves")

    def macs(self, size: Size) -> int:
        """MACs for an input of `size`, counted as thop does."""
        raise NotImplementedError(f"macs of {type(self).__name__}, which has no leaves")

    @abstractmethod
    def module(self) -> nn.Module:
        """The torch module, which maps [B, cin, H, W] to [B, cout, *self.out((H, W))]. Import torch
        in here."""

    def out(self, size: Size) -> Size:
        """Size of the output."""
        return size

    def leaves(self, size: Size, name: str) -> Iterator[Leaf]:
        """Its parts for an input of `size`, each with the name that it has in the built detector
        (where this layer is `name`); weights are inherited by parts."""
        yield name, self, size


def separable(
    cin: int,
    cout: int,
    stride: int = 1,
    activation: str | None = "relu",
    norm_groups: int | None = None,
) -> Chain:
    """Depthwise separable convolution (MobileNet, Howard et al. 2017): depthwise 3×3, then
    pointwise, each normalised."""
    return Chain(
        (
            Conv(cin, cin, 3, stride, groups=cin, activation=activation, norm_groups=norm_groups),
            Conv(cin, cout, activation=activation, norm_groups=norm_groups),
        )
    )


def unit(cin: int, cout: int, activation: str | None = "relu", norm: bool = True) -> Chain:
    """YuNet's unit (Wu et al. 2023): pointwise, then depthwise 3×3, normalised once at the end."""
    return Chain(
        (
            Conv(cin, cout, bias=True, norm=False),
            Conv(cout, cout, 3, groups=cout, bias=True, norm=norm, activation=activation),
        )
    )


Part = Conv | MaxPool | AvgPool | Norm | Scale | Fusion | CustomLayer
Layer = Part | Chain | Residual | SSH | Cascade
Leaf = tuple[str, Part, Size]
"""Name of the module, what it is, and the size of its input."""


def level_size(size: Size, level: int) -> Size:
    """Cells of pyramid level `level` (stride 2**level) for an image of `size` pixels, rounded up as
    by each layer of stride 2."""
    stride = 2**level
    # Without negative numbers: in an exported graph, division rounds towards 0.
    return (size[0] + stride - 1) // stride, (size[1] + stride - 1) // stride


def _reduced(size: Size, stride: int) -> Size:
    return -(-size[0] // stride), -(-size[1] // stride)
