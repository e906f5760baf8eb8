"""Batch normalisation and the activation after it, in training, in as few passes over a
channels-last tensor on a GPU as possible: torch's own kernels for it reach a third of the memory
bandwidth.
"""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.gpu.fused_norm_kernels import (
    HARD_SWISH,
    LEAKY,
    NONE,
    RELU,
    RELU6,
    SILU,
    grad_input,
    moments,
    normalise_activate,
    parameter_grads,
    sum_grads,
    sum_values,
)
from detector.gpu.kernels import multiprocessors

WARPS = 8
# Of the kernels that sum: elements of a tile (in bf16 16 bytes for each thread), and programs per
# multiprocessor: as many as fit beside each other.
SUM_TILE = 2048
SUM_PROGRAMS = 3
# Of those that map element to element.
MAP_TILE = 4096
MAP_PROGRAMS = 16
GROUP_TILE = 4096  # of those that add up the programs' sums

_CODES = {
    nn.ReLU: RELU.value,
    nn.ReLU6: RELU6.value,
    nn.LeakyReLU: LEAKY.value,
    nn.Hardswish: HARD_SWISH.value,
    nn.SiLU: SILU.value,
}


class _Plan:
    """Tiles and grids of the kernels for a matrix [rows, channels] on a device."""

    def __init__(self, rows: int, channels: int, device: torch.device):
        columns = channels if channels in (8, 16, 32) else 64
        width = math.lcm(channels, columns)
        wide_rows = triton.cdiv(rows * channels, width)
        blocks = width // columns
        processors = multiprocessors(device)

        def programs(height: int, per_processor: int) -> int:
            """Programs that share the tiles of the same columns."""
            tiles = triton.cdiv(wide_rows, height)
            return max(1, min(tiles, per_processor * processors // blocks))

        self.total = rows * channels
        self.matrix = channels, wide_rows, blocks
        whole = width == channels
        self.sum_tile = whole, SUM_TILE // columns, columns
        self.map_tile = whole, MAP_TILE // columns, columns
        sum_programs = programs(SUM_TILE // columns, SUM_PROGRAMS)
        self.sum_grid = (sum_programs * blocks,)
        self.map_grid = (programs(MAP_TILE // columns, MAP_PROGRAMS) * blocks,)
        self.partial_shape = 2, sum_programs, width
        self.partial_rows = sum_programs * width // channels
        group = min(16, triton.next_power_of_2(channels))
        self.group = GROUP_TILE // group, group
        self.group_grid = (triton.cdiv(channels, group),)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps, code, slope):
        channels = x.shape[1]
        rows = x.numel() // channels
        plan = _Plan(rows, channels, x.device)
        # The pivot is a pixel inside an image, at the golden section of all pixels: at a border,
        # padding may make the values atypical, and their squared distances large compared to the
        # variance.
        pivot = int(rows * 0.618)
        partials = x.new_empty(plan.partial_shape, dtype=torch.float32)
        mean, inverse = (x.new_empty(channels, dtype=torch.float32) for _ in range(2))
        y = _like(x)
        sum_values[plan.sum_grid](
            x, partials, plan.total, pivot, *plan.matrix, *plan.sum_tile, num_warps=WARPS
        )
        moments[plan.group_grid](
            x,
            partials,
            mean,
            inverse,
            running_mean,
            running_var,
            plan.partial_rows,
            rows,
            pivot,
            channels,
            eps,
            momentum,
            *plan.group,
            num_warps=WARPS,
        )
        normalise_activate[plan.map_grid](
            x,
            y,
            mean,
            inverse,
            weight,
            bias,
            plan.total,
            *plan.matrix,
            slope,
            code,
            *plan.map_tile,
            num_warps=WARPS,
        )
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.plan, ctx.rows, ctx.code, ctx.slope = plan, rows, code, slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, bias, mean, inverse = ctx.saved_tensors
        plan, moments = ctx.plan, (mean, inverse, weight, bias)
        grad = grad.contiguous(memory_format=_layout(x))
        partials = x.new_empty(plan.partial_shape, dtype=torch.float32)
        grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(bias)
        sum_grads[plan.sum_grid](
            x,
            grad,
            partials,
            *moments,
            plan.total,
            *plan.matrix,
            ctx.slope,
            ctx.code,
            *plan.sum_tile,
            num_warps=WARPS,
        )
        parameter_grads[plan.group_grid](
            partials,
            inverse,
            grad_weight,
            grad_bias,
            plan.partial_rows,
            x.shape[1],
            *plan.group,
            num_warps=WARPS,
        )
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _like(x)
            grad_input[plan.map_grid](
                x,
                grad,
                grad_x,
                *moments,
                grad_weight,
                grad_bias,
                plan.total,
                *plan.matrix,
                ctx.slope,
                1 / ctx.rows,
                ctx.code,
                *plan.map_tile,
                num_warps=WARPS,
            )
        return grad_x, grad_weight, grad_bias, None, None, None, None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.contiguous_format


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=_layout(x))


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    activation: nn.Module | None = None,
) -> Tensor:
    """Batch normalisation in training, then the activation; updates the running statistics.

    Args:
        x: bf16, fp16 or float32, [rows, C] contiguous or [N, C, H, W] channels-last, with more
            than one row.
        weight, bias, running_mean, running_var: float32 [C].
        activation: None, nn.ReLU, nn.ReLU6 or nn.LeakyReLU; never in place here.

    Returns:
        A tensor of the shape, layout and dtype of x.
    """
    code = NONE.value if activation is None else _CODES[type(activation)]
    return _BatchNorm.apply(
        x,
        weight,
        bias,
        running_mean,
        running_var,
        momentum,
        eps,
        code,
        getattr(activation, "negative_slope", 0.0),
    )


def usable(x: Tensor, norm: nn.Module, activation: nn.Module | None) -> bool:
    """Whether `fused_batch_norm` can replace `activation(norm(x))`."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and (activation is None or type(activation) in _CODES)
        and x.is_cuda
        and x.dim() == 4
        and x.shape[1] == norm.num_features
        and x.dtype in (torch.bfloat16, torch.float16, torch.float32)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > x.shape[1]
        and norm.weight.dtype == norm.running_mean.dtype == torch.float32
        and x.device == norm.weight.device
        and x.device.index == torch.cuda.current_device()
    )


def fused_batch_norm(x: Tensor, norm: nn.BatchNorm2d, activation: nn.Module | None) -> Tensor:
    """`activation(norm(x))` in training; requires `usable`.

    Args:
        x: [N, C, H, W] channels-last, on a GPU.

    Returns:
        [N, C, H, W] channels-last, of x's dtype.
    """
    assert norm.num_batches_tracked is not None  # see `usable`
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    return normalise(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.momentum,
        norm.eps,
        activation,
    )
