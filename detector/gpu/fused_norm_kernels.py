"""Triton kernels of batch normalisation and the activation after it, forward and backward.

A tensor [N, C, H, W], channels-last, is a matrix [rows = N·H·W, C]. The kernels see it as a wide
one, [rows·C / width, width], where `width` is the least common multiple of C and of a tile's
columns: tiles are full and loads aligned whatever C is, and a column belongs to one channel, so
that a program, which stays in its columns, reads the channel's values once. Sums are taken in two
stages in a fixed order: equal bit for bit from run to run.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Tiles whose loads are under way together.
VALUES_UNROLL = tl.constexpr(4)
GRADS_UNROLL = tl.constexpr(2)

NONE, RELU, RELU6, LEAKY, HARD_SWISH, SILU = (tl.constexpr(code) for code in range(6))


@triton.jit
def _columns(channels, blocks, WHOLE: tl.constexpr, BLOCK_C: tl.constexpr):
    """Columns [BLOCK_C] of the program's tiles, and the channel of each.

    WHOLE: whether a row of the wide matrix is a row of the matrix."""
    column = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = column
    if not WHOLE:
        channel = column % channels
    return column, channel


@triton.jit
def _tile_offsets(column, width, BLOCK_R: tl.constexpr):
    """Offsets [BLOCK_R, BLOCK_C] of a tile's elements from the first element of its first row."""
    return tl.arange(0, BLOCK_R)[:, None] * width + column[None, :]


@triton.jit
def _activate(z, slope, ACTIVATION: tl.constexpr):
    # Compared so that NaN stays NaN, as in torch.
    if ACTIVATION == RELU:
        z = tl.where(z <= 0, 0.0, z)
    elif ACTIVATION == RELU6:
        z = tl.where(z <= 0, 0.0, tl.where(z >= 6, 6.0, z))
    elif ACTIVATION == LEAKY:
        z = tl.where(z > 0, z, z * slope)
    elif ACTIVATION == HARD_SWISH:
        z = tl.where(z <= -3, 0.0, tl.where(z >= 3, z, z * (z + 3) / 6))
    elif ACTIVATION == SILU:
        z = z * tl.sigmoid(z)
    return z


@triton.jit
def _grad_before(grad, z, slope, ACTIVATION: tl.constexpr):
    """Gradient before the activation, from that after it and the activation's input `z`."""
    if ACTIVATION == RELU:
        grad = tl.where(z <= 0, 0.0, grad)
    elif ACTIVATION == RELU6:
        grad = tl.where((z <= 0) | (z >= 6), 0.0, grad)
    elif ACTIVATION == LEAKY:
        grad = tl.where(z > 0, grad, grad * slope)
    elif ACTIVATION == HARD_SWISH:
        grad = tl.where(z <= -3, 0.0, tl.where(z >= 3, grad, grad * (z / 3 + 0.5)))
    elif ACTIVATION == SILU:
        share = tl.sigmoid(z)
        grad = grad * share * (1 + z * (1 - share))
    return grad


@triton.jit(do_not_specialize=["pivot", "wide_rows", "blocks"])
def sum_values(
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
    offsets = _tile_offsets(column, width, BLOCK_R)
    program = tl.program_id(0) // blocks
    programs = tl.num_programs(0) // blocks
    center = tl.load(x + tl.cast(pivot, tl.int64) * channels + channel)
    padding = tl.broadcast_to(center[None, :], (BLOCK_R, BLOCK_C))
    center = center.to(tl.float32)[None, :]
    plain = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    square = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for first in tl.range(
        program * BLOCK_R, wide_rows, programs * BLOCK_R, loop_unroll_factor=VALUES_UNROLL
    ):
        base = tl.cast(first, tl.int64) * width
        value = tl.load(x + base + offsets, mask=offsets < total - base, other=padding)
        value = value.to(tl.float32) - center
        plain += value
        square += value * value
    target = partials + program * width + column
    tl.store(target, tl.sum(plain, axis=0))
    tl.store(target + programs * width, tl.sum(square, axis=0))


@triton.jit
def _sum_partials(
    partials, count, channels, channel, exists, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Sums float64 [CHANNELS] over the rows of the two float32 matrices [count, channels]."""
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
def moments(
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
    """Mean and inverse standard deviation, float32 [C]; updates the running statistics."""
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
    """Of each column [1, .]: mean, inverse deviation, its product with the weight, and bias."""
    deviation = tl.load(inverse + channel)[None, :]
    return (
        tl.load(mean + channel)[None, :],
        deviation,
        deviation * tl.load(weight + channel)[None, :],
        tl.load(bias + channel)[None, :],
    )


@triton.jit(do_not_specialize=["wide_rows", "blocks"])
def normalise_activate(
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
    offsets = _tile_offsets(column, width, BLOCK_R)
    middle, _, scale, shift = _affine(mean, inverse, weight, bias, channel)
    last = (tl.cdiv(wide_rows, BLOCK_R) - 1) * BLOCK_R
    # From the end: the cache still holds what the sums read last.
    for done in range(
        tl.program_id(0) // blocks * BLOCK_R, wide_rows, tl.num_programs(0) // blocks * BLOCK_R
    ):
        base = tl.cast(last - done, tl.int64) * width
        mask = offsets < total - base
        value = tl.load(x + base + offsets, mask=mask, other=0.0).to(tl.float32) - middle
        z = _activate(value * scale + shift, slope, ACTIVATION)
        tl.store(y + base + offsets, z.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["wide_rows", "blocks"])
def sum_grads(
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
    offsets = _tile_offsets(column, width, BLOCK_R)
    program = tl.program_id(0) // blocks
    programs = tl.num_programs(0) // blocks
    middle, _, scale, shift = _affine(mean, inverse, weight, bias, channel)
    plain = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    product = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for first in tl.range(
        program * BLOCK_R, wide_rows, programs * BLOCK_R, loop_unroll_factor=GRADS_UNROLL
    ):
        base = tl.cast(first, tl.int64) * width
        mask = offsets < total - base
        value = tl.load(x + base + offsets, mask=mask, other=0.0).to(tl.float32) - middle
        dz = tl.load(grad + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dz = _grad_before(dz, value * scale + shift, slope, ACTIVATION)
        plain += dz
        product += dz * value
    target = partials + program * width + column
    tl.store(target, tl.sum(plain, axis=0))
    tl.store(target + programs * width, tl.sum(product, axis=0))


@triton.jit(do_not_specialize=["count"])
def parameter_grads(
    partials,
    inverse,
    grad_weight,
    grad_bias,
    count,
    channels,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Gradients of weight and bias, float32 [C], from the sums of `sum_grads`."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    plain, product = _sum_partials(partials, count, channels, channel, exists, ROWS, CHANNELS)
    deviation = tl.load(inverse + channel, mask=exists, other=0.0)
    tl.store(grad_bias + channel, plain.to(tl.float32), mask=exists)
    tl.store(grad_weight + channel, (product * deviation).to(tl.float32), mask=exists)


@triton.jit(do_not_specialize=["wide_rows", "blocks"])
def grad_input(
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
    offsets = _tile_offsets(column, width, BLOCK_R)
    middle, deviation, scale, shift = _affine(mean, inverse, weight, bias, channel)
    constant = scale * tl.load(grad_bias + channel)[None, :] * share
    linear = scale * deviation * tl.load(grad_weight + channel)[None, :] * share
    last = (tl.cdiv(wide_rows, BLOCK_R) - 1) * BLOCK_R
    for done in range(
        tl.program_id(0) // blocks * BLOCK_R, wide_rows, tl.num_programs(0) // blocks * BLOCK_R
    ):
        base = tl.cast(last - done, tl.int64) * width
        mask = offsets < total - base
        value = tl.load(x + base + offsets, mask=mask, other=0.0).to(tl.float32) - middle
        dz = tl.load(grad + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dz = _grad_before(dz, value * scale + shift, slope, ACTIVATION)
        result = dz * scale - constant - value * linear
        tl.store(out + base + offsets, result.to(out.dtype.element_ty), mask=mask)
