"""Augmentation of images in a GPU's memory: one kernel crops, resizes, recolours and flips, as
`transforms.Transforms.render` does with OpenCV (up to about one grey level) if crops are resized by
area and linear interpolation."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


@triton.jit
def _tap(position, tap, scale, side):
    """Source pixel and weight of the tap-th input of an output pixel, along one axis."""
    shrinks = scale > 1
    # Linear interpolation: the two neighbours of the pixel's centre.
    centre = (position + 0.5) * scale - 0.5
    left = tl.floor(centre)
    share = centre - left
    linear = tl.where(tap == 0, 1 - share, tl.where(tap == 1, share, 0.0))
    # Area interpolation: the pixels that the output pixel covers, weighted by their overlap.
    low = position * scale
    first = tl.floor(low + 1e-4)
    source = first + tap
    covered = tl.minimum(low + scale, source + 1) - tl.maximum(low, source)
    area = tl.maximum(covered, 0.0) / scale
    source = tl.where(shrinks, source, left + tap)
    source = tl.minimum(tl.maximum(source, 0.0), side - 1.0)
    return source.to(tl.int32), tl.where(shrinks, area, linear)


@triton.jit
def _render(
    flat,
    starts,
    crops,
    colors,
    out,
    SIZE: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PAD_B: tl.constexpr,
    PAD_G: tl.constexpr,
    PAD_R: tl.constexpr,
):
    image = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_pixel = pixel < SIZE * SIZE
    row = pixel // SIZE
    column = pixel % SIZE
    start = tl.load(starts + image)
    height = tl.load(crops + image * 6)
    width = tl.load(crops + image * 6 + 1)
    x = tl.load(crops + image * 6 + 2)
    y = tl.load(crops + image * 6 + 3)
    side = tl.load(crops + image * 6 + 4)
    flips = tl.load(crops + image * 6 + 5)
    column = tl.where(flips != 0, SIZE - 1 - column, column)
    scale = side.to(tl.float32) / SIZE
    blue = tl.zeros([BLOCK], tl.float32)
    green = tl.zeros([BLOCK], tl.float32)
    red = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(TAPS):
        v, weight_y = _tap(row.to(tl.float32), i, scale, side)
        for j in tl.static_range(TAPS):
            u, weight_x = _tap(column.to(tl.float32), j, scale, side)
            u = u + x
            w = v + y
            inside = is_pixel & (u >= 0) & (u < width) & (w >= 0) & (w < height)
            source = flat + start + (w.to(tl.int64) * width + u) * 3
            weight = weight_x * weight_y
            blue += weight * tl.load(source, mask=inside, other=PAD_B).to(tl.float32)
            green += weight * tl.load(source + 1, mask=inside, other=PAD_G).to(tl.float32)
            red += weight * tl.load(source + 2, mask=inside, other=PAD_R).to(tl.float32)
    blue, green, red = tl.floor(blue + 0.5), tl.floor(green + 0.5), tl.floor(red + 0.5)
    target = out + (image.to(tl.int64) * SIZE * SIZE + pixel) * 3
    color = colors + image * 12
    for channel in tl.static_range(3):
        value = (
            tl.load(color + channel * 4) * blue
            + tl.load(color + channel * 4 + 1) * green
            + tl.load(color + channel * 4 + 2) * red
            + tl.load(color + channel * 4 + 3)
        )
        value = tl.minimum(tl.maximum(tl.floor(value + 0.5), 0.0), 255.0)
        tl.store(target + channel, value.to(tl.uint8), mask=is_pixel)


def render(
    pixels: Tensor,
    starts: Tensor,
    crops: Tensor,
    colors: Tensor,
    size: int,
    taps: int,
    padding: tuple[int, int, int],
) -> Tensor:
    """uint8 [B, 3, size, size] BGR, channels-last in memory: an augmented crop of each image.

    Args:
        pixels: uint8 [N]: all images [H, W, 3] BGR, one after the other.
        starts: int64 [B]: offset of each image of the batch in `pixels`.
        crops: int32 [B, 6]: height and width of the image, x, y and side of the square crop (px
            of the image; it may reach beyond it), and whether to flip it (0 or 1).
        colors: float32 [B, 3, 4], see `transforms.Transforms.colors`.
        taps: input pixels of an output pixel along an axis: 2, or if a crop of `side` px shrinks,
            ceil(side / size) + 1.
        padding: BGR colour beyond the image.
    """
    out = torch.empty(len(starts), size, size, 3, dtype=torch.uint8, device=pixels.device)
    _render[(triton.cdiv(size * size, BLOCK), len(starts))](
        pixels, starts, crops, colors, out, size, taps, BLOCK, *padding
    )
    return out.permute(0, 3, 1, 2)
