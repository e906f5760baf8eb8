"""Anchors: the boxes that predictions are offsets from."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from detector.config import Detector
from detector.layers import Size, level_size


def anchors(config: Detector, size: Size, device: torch.device | str = "cpu") -> Tensor:
    """float32 [A, 4] xyxy px for an image of `size` (height, width) px; not to be written to.

    In the order of the detector's outputs: level by level (finest first), row by row over the
    cells, the anchors of a cell innermost. Cell i of a level is centred at (i + 0.5) · stride,
    which may lie outside an image whose side is no multiple of the stride. Not clipped.
    """
    return _cached(config.anchor_shapes(), config.neck.levels, tuple(size), torch.device(device))


def symbolic_anchors(config: Detector, size: Size) -> Tensor:
    """The same for a size that is not known yet, while a graph is exported."""
    return _anchors(config.anchor_shapes(), config.neck.levels, size, torch.device("cpu"))


def _anchors(shapes: tuple, levels: tuple[int, ...], size: Size, device: torch.device) -> Tensor:
    result = []
    for level_shapes, level in zip(shapes, levels):
        height, width = level_size(size, level)
        stride = 2**level
        y = (torch.arange(height, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(width, dtype=torch.float32) + 0.5) * stride
        centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # [H, W, (x, y)]
        half = torch.tensor(level_shapes, dtype=torch.float32) / 2  # [N, (w, h)]
        centers = centers[:, :, None]
        result.append(torch.cat((centers - half, centers + half), dim=-1).reshape(-1, 4))
    return torch.cat(result).to(device)


_cached = lru_cache(maxsize=16)(_anchors)
