"""Depthwise convolution of a channels-last tensor on a GPU, and its gradients, by Triton kernels
that are compiled once for all shapes: cuDNN compiles anew for each new shape, which takes a tenth
of a second or more of CPU time, forward and for each gradient.

A tensor [N, C, H, W], channels-last, is N images of pixels × channels. A tile is BLOCK_P pixels of
one image by BLOCK_C channels; a program stays in its channels, holds their weights in registers,
and processes consecutive tiles, so that rows of pixels which the kernel's taps share are read from
the nearest cache. One pass gives both gradients: for each pixel of the input, the gradients of the
outputs that it contributes to, times the weights, add up to its gradient, and, times its value, to
the weights'. Each program has its own sums for the weights, which are added up in a fixed order:
equal bit for bit from run to run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.gpu.kernels import multiprocessors

WARPS = 4
# By kernel size. Elements of a tile for each thread, which holds as many weights times the taps in
# its registers, and in the backward pass as many sums as well.
FORWARD_ELEMENTS = {3: 8, 5: 4, 7: 2}
BACKWARD_ELEMENTS = {3: 4, 5: 2, 7: 1}
# Programs of a multiprocessor, all resident at once, and the registers (of 65536) of each thread.
PROGRAMS = {3: 4, 5: 3, 7: 2}
REGISTERS = {3: 128, 5: 168, 7: 255}
MAX_IMAGE = 2**31 - 1  # elements, which offsets of 32 bits reach
MAX_PIXELS = 2**21  # of an image, whose indices float32 distinguishes, see `_pixels`

DTYPES = torch.bfloat16, torch.float16, torch.float32


@triton.jit
def _share(count):
    """First, and one past the last, of the program's even share of `count` tiles."""
    program = tl.cast(tl.program_id(1), tl.int64)
    programs = tl.num_programs(1)
    return (program * count // programs).to(tl.int32), ((program + 1) * count // programs).to(
        tl.int32
    )


@triton.jit
def _next(image, tile, tiles):
    """The image and index of the tile after the `tile`-th of an image's `tiles`."""
    last = tile + 1 == tiles
    return image + last.to(tl.int32), tl.where(last, 0, tile + 1)


@triton.jit
def _pixels(tile, width, inverse, BLOCK_P: tl.constexpr):
    """Row and column, each [BLOCK_P], of the pixels of an image's tile.

    inverse: 1 / width. Cheaper than //: the half keeps the quotient 1 / (2 width) away from
    integers, and float32 errs by less than that if an image has at most MAX_PIXELS."""
    pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
    row = ((pixel.to(tl.float32) + 0.5) * inverse).to(tl.int32)
    return row, pixel - row * width


@triton.jit
def _load_weights(weight, channel, exists, TAPS: tl.constexpr):
    """A tuple of the taps' weights, each [1, BLOCK_C]."""
    weights = ()
    for tap in tl.static_range(TAPS):
        value = tl.load(weight + channel * TAPS + tap, mask=exists, other=0.0)
        weights = weights + (value[None, :],)  # type: ignore[assignment]  # Triton's tuples grow
    return weights


@triton.jit(do_not_specialize=["images", "height", "width", "out_height", "out_width", "units"])
def _forward(
    x,
    weight,
    y,
    images,
    height,
    width,
    out_height,
    out_width,
    units,
    inverse,
    VECTOR: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """y, by tiles of its pixels; C is units · VECTOR."""
    PAD: tl.constexpr = K // 2
    channels = units * VECTOR
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    exists = channel < channels
    weights = _load_weights(weight, channel, exists, K * K)
    tiles = tl.cdiv(out_height * out_width, BLOCK_P)
    first, end = _share(images * tiles)
    image = first // tiles
    tile = first - image * tiles
    for _ in range(first, end):
        row, column = _pixels(tile, out_width, inverse, BLOCK_P)
        source = x + tl.cast(image, tl.int64) * (height * width) * channels
        offsets = ((row * width + column) * (STRIDE * channels))[:, None] + channel[None, :]
        total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
        for tap in tl.static_range(K * K):
            down = tap // K - PAD
            right = tap % K - PAD
            # As unsigned integers, negative ones exceed any size.
            mask = ((row * STRIDE + down).to(tl.uint32) < height.to(tl.uint32)) & (
                (column * STRIDE + right).to(tl.uint32) < width.to(tl.uint32)
            )
            value = tl.load(
                source + (down * width + right) * channels + offsets,
                mask=mask[:, None] & exists[None, :],
                other=0.0,
            )
            total += value.to(tl.float32) * weights[tap]
        target = y + tl.cast(image, tl.int64) * (out_height * out_width) * channels
        offsets = ((row * out_width + column) * channels)[:, None] + channel[None, :]
        tl.store(
            target + offsets,
            total.to(y.dtype.element_ty),
            mask=(row < out_height)[:, None] & exists[None, :],
        )
        image, tile = _next(image, tile, tiles)


@triton.jit(do_not_specialize=["images", "height", "width", "out_height", "out_width", "units"])
def _backward(
    x,
    weight,
    grad,
    grad_x,
    partials,
    images,
    height,
    width,
    out_height,
    out_width,
    units,
    inverse,
    VECTOR: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    OF_X: tl.constexpr,
    OF_WEIGHT: tl.constexpr,
):
    """Gradient of x, and the programs' sums for that of the weights: partials float32
    [programs, C, K·K].

    Each of a tile's pixels stands for STRIDE × STRIDE pixels of x, (row, column) · STRIDE +
    (below, beside): which taps reach a pixel depends on (below, beside) alone."""
    PAD: tl.constexpr = K // 2
    TAPS: tl.constexpr = K * K
    channels = units * VECTOR
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    exists = channel < channels
    if OF_X:
        weights = _load_weights(weight, channel, exists, TAPS)
    sums = ()
    if OF_WEIGHT:
        for _ in tl.static_range(TAPS):
            sums = sums + (tl.zeros((BLOCK_P, BLOCK_C), tl.float32),)  # type: ignore[assignment]
    across = tl.cdiv(width, STRIDE)
    tiles = tl.cdiv(tl.cdiv(height, STRIDE) * across, BLOCK_P)
    first, end = _share(images * tiles)
    image = first // tiles
    tile = first - image * tiles
    for _ in range(first, end):
        row, column = _pixels(tile, across, inverse, BLOCK_P)
        of_image = tl.cast(image, tl.int64) * (height * width) * channels
        source = grad + tl.cast(image, tl.int64) * (out_height * out_width) * channels
        offsets_x = ((row * width + column) * (STRIDE * channels))[:, None] + channel[None, :]
        offsets = ((row * out_width + column) * channels)[:, None] + channel[None, :]
        for part in tl.static_range(STRIDE * STRIDE):
            below = part // STRIDE
            beside = part % STRIDE
            of_part = of_image + (below * width + beside) * channels
            valid = (row * STRIDE + below < height) & (column * STRIDE + beside < width)
            valid = valid[:, None] & exists[None, :]
            if OF_WEIGHT:
                value = tl.load(x + of_part + offsets_x, mask=valid, other=0.0).to(tl.float32)
            total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
            for tap in tl.static_range(TAPS):
                # K · STRIDE more, so that nothing negative is divided.
                down = below + PAD - tap // K + K * STRIDE
                right = beside + PAD - tap % K + K * STRIDE
                if down % STRIDE == 0 and right % STRIDE == 0:
                    mask = (
                        (row + (down // STRIDE - K)).to(tl.uint32) < out_height.to(tl.uint32)
                    ) & ((column + (right // STRIDE - K)).to(tl.uint32) < out_width.to(tl.uint32))
                    shift = ((down // STRIDE - K) * out_width + (right // STRIDE - K)) * channels
                    dy = tl.load(
                        source + shift + offsets, mask=mask[:, None] & exists[None, :], other=0.0
                    ).to(tl.float32)
                    if OF_X:
                        total += dy * weights[tap]
                    if OF_WEIGHT:
                        sums = sums[:tap] + (sums[tap] + dy * value,) + sums[tap + 1 :]
            if OF_X:
                tl.store(
                    grad_x + of_part + offsets_x, total.to(grad_x.dtype.element_ty), mask=valid
                )
        image, tile = _next(image, tile, tiles)
    if OF_WEIGHT:
        target = partials + (tl.program_id(1) * channels + channel) * TAPS
        for tap in tl.static_range(TAPS):
            tl.store(target + tap, tl.sum(sums[tap], axis=0), mask=exists)


def _vector(channels: int) -> int:
    """Channels of one load: the largest of 8, 4, 2 and 1 that divides `channels`."""
    return next(vector for vector in (8, 4, 2, 1) if channels % vector == 0)


def _block_channels(channels: int) -> int:
    """Channels of a tile: the most that leave at most a quarter of the lanes idle."""
    for block in 32, 16:
        if triton.cdiv(channels, block) * block * 3 <= 4 * channels:
            return block
    return 8


def _plan(
    images: int,
    height: int,
    width: int,
    channels: int,
    elements: int,
    kernel: int,
    device: torch.device,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The grid (blocks of channels, programs), and the (pixels, channels) of a tile."""
    block = _block_channels(channels)
    pixels = elements * WARPS * 32 // block
    blocks = triton.cdiv(channels, block)
    tiles = images * triton.cdiv(height * width, pixels)
    programs = max(1, min(tiles, PROGRAMS[kernel] * multiprocessors(device) // blocks))
    return (blocks, programs), (pixels, block)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, stride):
        images, channels, height, width = x.shape
        kernel = weight.shape[-1]
        out_height, out_width = ((size - 1) // stride + 1 for size in (height, width))
        y = torch.empty(
            (images, channels, out_height, out_width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        grid, tile = _plan(
            images, out_height, out_width, channels, FORWARD_ELEMENTS[kernel], kernel, x.device
        )
        vector = _vector(channels)
        _forward[grid](
            x,
            weight,
            y,
            images,
            height,
            width,
            out_height,
            out_width,
            channels // vector,
            1 / out_width,
            vector,
            kernel,
            stride,
            *tile,
            num_warps=WARPS,
            maxnreg=REGISTERS[kernel],
        )
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        of_x, of_weight, _ = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = x.shape
        kernel, stride = weight.shape[-1], ctx.stride
        across = triton.cdiv(width, stride)
        grid, tile = _plan(
            images,
            triton.cdiv(height, stride),
            across,
            channels,
            BACKWARD_ELEMENTS[kernel],
            kernel,
            x.device,
        )
        grad_x = partials = None
        if of_x:
            grad_x = torch.empty_like(x, memory_format=torch.channels_last)
        if of_weight:
            partials = x.new_empty((grid[1], *weight.shape), dtype=torch.float32)
        vector = _vector(channels)
        _backward[grid](
            x,
            weight,
            grad,
            grad_x,
            partials,
            images,
            height,
            width,
            *grad.shape[2:],
            channels // vector,
            1 / across,
            vector,
            kernel,
            stride,
            *tile,
            of_x,
            of_weight,
            num_warps=WARPS,
            maxnreg=REGISTERS[kernel],
        )
        return grad_x, None if partials is None else partials.sum(0), None


def convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Depthwise convolution, zero-padded by half the kernel.

    Args:
        x: [N, C, H, W] channels-last, bf16, fp16 or float32.
        weight: float32 [C, 1, k, k], k 3, 5 or 7.
        stride: 1 or 2.

    Returns:
        [N, C, ⌈H / stride⌉, ⌈W / stride⌉] channels-last, of x's dtype.
    """
    return _Depthwise.apply(x, weight, stride)


def usable(x: Tensor, conv: nn.Module) -> bool:
    """Whether `depthwise` can replace `conv(x)`."""
    return (
        type(conv) is nn.Conv2d
        and conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.bias is None
        and conv.kernel_size in ((3, 3), (5, 5), (7, 7))
        and conv.stride in ((1, 1), (2, 2))
        and conv.padding == (conv.kernel_size[0] // 2,) * 2
        and conv.padding_mode == "zeros"
        and conv.dilation == (1, 1)
        and x.is_cuda
        and x.dim() == 4
        and x.shape[1] == conv.in_channels
        and x.dtype in DTYPES
        and x.is_contiguous(memory_format=torch.channels_last)
        and 0 < x.numel() <= MAX_IMAGE * x.shape[0]
        and x.shape[2] * x.shape[3] <= MAX_PIXELS
        and conv.weight.dtype == torch.float32
        and conv.weight.is_contiguous()
        and x.device == conv.weight.device
        and x.device.index == torch.cuda.current_device()
    )


def depthwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv(x)`, except that autocast does not round the weights here; requires `usable`.

    Args:
        x: [N, C, H, W] channels-last, on a GPU; cast under autocast as by `conv`.

    Returns:
        [N, C, ⌈H / stride⌉, ⌈W / stride⌉] channels-last, of x's dtype or autocast's.
    """
    if torch.is_autocast_enabled("cuda"):
        x = x.to(torch.get_autocast_dtype("cuda"))
    return convolve(x, conv.weight, conv.stride[0])
