"""Batch normalisation and the activation after it, in training, as few passes over a channels-last
tensor on a GPU as they can be: torch's own kernels for it reach a third of the memory's rate.

A tensor [N, C, H, W], channels-last, is a matrix [rows = N·H·W, C]. The kernels see it as a wide
one, [rows·C / width, width], where `width` is the least common multiple of C and of a tile's
columns: tiles are full and loads aligned whatever C is, and a column belongs to one channel, so
that a program, which stays in its columns, reads the channel's values once. Sums go over two
stages in a fixed order: equal bit for bit from run to run.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.gpu.kernels import multiprocessors

WARPS = 8
# Of the kernels that sum: elements of a tile (in bf16 16 bytes for each thread), tiles whose loads
# are under way together, and programs per multiprocessor: as many as fit beside each other.
SUM_TILE = 2048
VALUES_UNROLL = tl.constexpr(4)
GRADS_UNROLL = tl.constexpr(2)
SUM_PROGRAMS = 3
# Of those that map element to element.
MAP_TILE = 4096
MAP_PROGRAMS = 16
GROUP_TILE = 4096  # of those that sum up the programs' sums

NONE, RELU, RELU6, LEAKY = (tl.constexpr(code) for code in range(4))
_CODES = {nn.ReLU: RELU.value, nn.ReLU6: RELU6.value, nn.LeakyReLU: LEAKY.value}


@triton.jit
def _columns(channels, blocks, WHOLE: tl.constexpr, BLOCK_C: tl.constexpr):
    """Columns of the program's tiles, [BLOCK_C], and the channel that each belongs to.

    WHOLE: whether a row of the wide matrix is one of the matrix."""
    column = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = column
    if not WHOLE:
        channel = column % channels
    return column, channel


@triton.jit
def _inside(column, width, BLOCK_R: tl.constexpr):
    """[BLOCK_R, BLOCK_C] offsets of a tile's elements from the first element of its first row."""
    return tl.arange(0, BLOCK_R)[:, None] * width + column[None, :]


@triton.jit
def _activate(z, slope, ACTIVATION: tl.constexpr):
    # Comparisons such that NaN stays NaN, as in torch.
    if ACTIVATION == RELU:
        z = tl.where(z <= 0, 0.0, z)
    elif ACTIVATION == RELU6:
        z = tl.where(z <= 0, 0.0, tl.where(z >= 6, 6.0, z))
    elif ACTIVATION == LEAKY:
        z = tl.where(z > 0, z, z * slope)
    return z


@triton.jit
def _grad_before(grad, z, slope, ACTIVATION: tl.constexpr):
    """Gradient before the activation from the one after it and the input `z` of it."""
    if ACTIVATION == RELU:
        grad = tl.where(z <= 0, 0.0, grad)
    elif ACTIVATION == RELU6:
        grad = tl.where((z <= 0) | (z >= 6), 0.0, grad)
    elif ACTIVATION == LEAKY:
        grad = tl.where(z > 0, grad, grad * slope)
    return grad


@triton.jit(do_not_specialize=["pivot", "wide_rows", "blocks"])
def _sum_values(
    x,
    partials,
    total,
    pivot,
    channels,
    wide_rows,
    blocks,
    WHOLE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums of x - x[pivot] and of its square: partials float32 [2, programs / blocks, width]."""
    width = blocks * BLOCK_C
    column, channel = _columns(channels, blocks, WHOLE, BLOCK_C)
    inside = _inside(column, width, BLOCK_R)
    place = tl.program_id(0) // blocks
    places = tl.num_programs(0) // blocks
    center = tl.load(x + tl.cast(pivot, tl.int64) * channels + channel)
    outside = tl.broadcast_to(center[None, :], (BLOCK_R, BLOCK_C))
    center = center.to(tl.float32)[None, :]
    plain = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    square = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for first in tl.range(
        place * BLOCK_R, wide_rows, places * BLOCK_R, loop_unroll_factor=VALUES_UNROLL
    ):
        base = tl.cast(first, tl.int64) * width
        value = tl.load(x + base + inside, mask=inside < total - base, other=outside)
        value = value.to(tl.float32) - center
        plain += value
        square += value * value
    target = partials + place * width + column
    tl.store(target, tl.sum(plain, axis=0))
    tl.store(target + places * width, tl.sum(square, axis=0))


@triton.jit
def _sum_partials(
    partials, count, channels, channel, exists, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """float64 [CHANNELS] sums over the rows of the two float32 matrices [count, channels]."""
    row = tl.arange(0, ROWS)
    first = tl.zeros((ROWS, CHANNELS), tl.float64)
    second = tl.zeros((ROWS, CHANNELS), tl.float64)
    for start in range(0, count, ROWS):
        at = start + row
        source = partials + at[:, None] * channels + channel[None, :]
        mask = (at < count)[:, None] & exists[None, :]
        first += tl.load(source, mask=mask, other=0.0).to(tl.float64)
        second += tl.load(source + count * channels, mask=mask, other=0.0).to(tl.float64)
    return tl.sum(first, axis=0), tl.sum(second, axis=0)


@triton.jit(do_not_specialize=["count", "rows", "pivot"])
def _moments(
    x,
    partials,
    mean,
    inverse,
    running_mean,
    running_var,
    count,
    rows,
    pivot,
    channels,
    eps,
    momentum,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Mean and inverse standard deviation, float32 [C]; moves the running moments."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    plain, square = _sum_partials(partials, count, channels, channel, exists, ROWS, CHANNELS)
    number = tl.cast(rows, tl.float64)
    off = plain / number
    var = square / number - off * off
    var = tl.where(var < 0, 0.0, var)
    unbiased = (var * (number / (number - 1))).to(tl.float32)
    center = tl.load(x + tl.cast(pivot, tl.int64) * channels + channel, mask=exists, other=0.0)
    middle = (center.to(tl.float64) + off).to(tl.float32)
    tl.store(mean + channel, middle, mask=exists)
    tl.store(inverse + channel, 1 / tl.sqrt_rn(var.to(tl.float32) + eps), mask=exists)
    old = tl.load(running_mean + channel, mask=exists, other=0.0)
    tl.store(running_mean + channel, (1 - momentum) * old + momentum * middle, mask=exists)
    old = tl.load(running_var + channel, mask=exists, other=0.0)
    tl.store(running_var + channel, (1 - momentum) * old + momentum * unbiased, mask=exists)


@triton.jit
def _affine(mean, inverse, weight, bias, channel):
    """Of each column: mean, inverse deviation, its product with the weight, and bias, [1, .]."""
    deviation = tl.load(inverse + channel)[None, :]
    return (
        tl.load(mean + channel)[None, :],
        deviation,
        deviation * tl.load(weight + channel)[None, :],
        tl.load(bias + channel)[None, :],
    )


@triton.jit(do_not_specialize=["wide_rows", "blocks"])
def _normalise(
    x,
    y,
    mean,
    inverse,
    weight,
    bias,
    total,
    channels,
    wide_rows,
    blocks,
    slope,
    ACTIVATION: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """y = activation((x - mean) · inverse deviation · weight + bias)."""
    width = blocks * BLOCK_C
    column, channel = _columns(channels, blocks, WHOLE, BLOCK_C)
    inside = _inside(column, width, BLOCK_R)
    middle, _, scale, shift = _affine(mean, inverse, weight, bias, channel)
    last = (tl.cdiv(wide_rows, BLOCK_R) - 1) * BLOCK_R
    # From the end: the cache still holds what the sums went over last.
    for done in range(
        tl.program_id(0) // blocks * BLOCK_R, wide_rows, tl.num_programs(0) // blocks * BLOCK_R
    ):
        base = tl.cast(last - done, tl.int64) * width
        mask = inside < total - base
        value = tl.load(x + base + inside, mask=mask, other=0.0).to(tl.float32) - middle
        z = _activate(value * scale + shift, slope, ACTIVATION)
        tl.store(y + base + inside, z.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["wide_rows", "blocks"])
def _sum_grads(
    x,
    grad,
    partials,
    mean,
    inverse,
    weight,
    bias,
    total,
    channels,
    wide_rows,
    blocks,
    slope,
    ACTIVATION: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums of the gradient dz before the activation and of dz · (x - mean): partials as above."""
    width = blocks * BLOCK_C
    column, channel = _columns(channels, blocks, WHOLE, BLOCK_C)
    inside = _inside(column, width, BLOCK_R)
    place = tl.program_id(0) // blocks
    places = tl.num_programs(0) // blocks
    middle, _, scale, shift = _affine(mean, inverse, weight, bias, channel)
    plain = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    product = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for first in tl.range(
        place * BLOCK_R, wide_rows, places * BLOCK_R, loop_unroll_factor=GRADS_UNROLL
    ):
        base = tl.cast(first, tl.int64) * width
        mask = inside < total - base
        value = tl.load(x + base + inside, mask=mask, other=0.0).to(tl.float32) - middle
        dz = tl.load(grad + base + inside, mask=mask, other=0.0).to(tl.float32)
        dz = _grad_before(dz, value * scale + shift, slope, ACTIVATION)
        plain += dz
        product += dz * value
    target = partials + place * width + column
    tl.store(target, tl.sum(plain, axis=0))
    tl.store(target + places * width, tl.sum(product, axis=0))


@triton.jit(do_not_specialize=["count"])
def _parameter_grads(
    partials,
    inverse,
    grad_weight,
    grad_bias,
    count,
    channels,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    plain, product = _sum_partials(partials, count, channels, channel, exists, ROWS, CHANNELS)
    deviation = tl.load(inverse + channel, mask=exists, other=0.0)
    tl.store(grad_bias + channel, plain.to(tl.float32), mask=exists)
    tl.store(grad_weight + channel, (product * deviation).to(tl.float32), mask=exists)


@triton.jit(do_not_specialize=["wide_rows", "blocks"])
def _grad_input(
    x,
    grad,
    out,
    mean,
    inverse,
    weight,
    bias,
    grad_weight,
    grad_bias,
    total,
    channels,
    wide_rows,
    blocks,
    slope,
    share,
    ACTIVATION: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gradient of x: weight · inverse deviation · (dz - mean of dz - x̂ · mean of dz · x̂)."""
    width = blocks * BLOCK_C
    column, channel = _columns(channels, blocks, WHOLE, BLOCK_C)
    inside = _inside(column, width, BLOCK_R)
    middle, deviation, scale, shift = _affine(mean, inverse, weight, bias, channel)
    constant = scale * tl.load(grad_bias + channel)[None, :] * share
    linear = scale * deviation * tl.load(grad_weight + channel)[None, :] * share
    last = (tl.cdiv(wide_rows, BLOCK_R) - 1) * BLOCK_R
    for done in range(
        tl.program_id(0) // blocks * BLOCK_R, wide_rows, tl.num_programs(0) // blocks * BLOCK_R
    ):
        base = tl.cast(last - done, tl.int64) * width
        mask = inside < total - base
        value = tl.load(x + base + inside, mask=mask, other=0.0).to(tl.float32) - middle
        dz = tl.load(grad + base + inside, mask=mask, other=0.0).to(tl.float32)
        dz = _grad_before(dz, value * scale + shift, slope, ACTIVATION)
        result = dz * scale - constant - value * linear
        tl.store(out + base + inside, result.to(out.dtype.element_ty), mask=mask)


class _Plan:
    """How the kernels go over a matrix [rows, channels] on a device."""

    def __init__(self, rows: int, channels: int, device: torch.device):
        columns = channels if channels in (8, 16, 32) else 64
        width = math.lcm(channels, columns)
        wide_rows = triton.cdiv(rows * channels, width)
        blocks = width // columns
        processors = multiprocessors(device)

        def places(height: int, programs: int) -> int:
            """Programs that share the tiles of the same columns."""
            tiles = triton.cdiv(wide_rows, height)
            return max(1, min(tiles, programs * processors // blocks))

        self.total = rows * channels
        self.matrix = channels, wide_rows, blocks
        whole = width == channels
        self.sum_tile = whole, SUM_TILE // columns, columns
        self.map_tile = whole, MAP_TILE // columns, columns
        sum_places = places(SUM_TILE // columns, SUM_PROGRAMS)
        self.sum_grid = (sum_places * blocks,)
        self.map_grid = (places(MAP_TILE // columns, MAP_PROGRAMS) * blocks,)
        self.partial_shape = 2, sum_places, width
        self.partial_rows = sum_places * width // channels
        group = min(16, triton.next_power_of_2(channels))
        self.group = GROUP_TILE // group, group
        self.group_grid = (triton.cdiv(channels, group),)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps, code, slope):
        channels = x.shape[1]
        rows = x.numel() // channels
        plan = _Plan(rows, channels, x.device)
        # A pixel from amid an image, as the golden section of all is: at a border, padding may
        # make the values rare ones, and their squared distances large beside the variance.
        pivot = int(rows * 0.618)
        partials = x.new_empty(plan.partial_shape, dtype=torch.float32)
        mean, inverse = (x.new_empty(channels, dtype=torch.float32) for _ in range(2))
        y = _like(x)
        _sum_values[plan.sum_grid](
            x, partials, plan.total, pivot, *plan.matrix, *plan.sum_tile, num_warps=WARPS
        )
        _moments[plan.group_grid](
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
        _normalise[plan.map_grid](
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
        _sum_grads[plan.sum_grid](
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
        _parameter_grads[plan.group_grid](
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
            _grad_input[plan.map_grid](
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
    """Batch normalisation in training, then the activation; moves the running moments.

    Args:
        x: bf16, fp16 or float32, [rows, C] contiguous or [N, C, H, W] channels-last, with more
            than one row.
        weight, bias, running_mean, running_var: float32 [C].
        activation: None, nn.ReLU, nn.ReLU6 or nn.LeakyReLU; whether in place has no meaning here.

    Returns:
        Of the shape, layout and dtype of x.
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
    """Whether `fused_batch_norm` can stand in for `activation(norm(x))`."""
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
    """`activation(norm(x))` in training, where `usable`.

    Args:
        x: [N, C, H, W] channels-last, on a GPU.

    Returns:
        [N, C, H, W] channels-last, of x's dtype.
    """
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
