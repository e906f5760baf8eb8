"""Anchors (prior boxes) of an image, one per prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from detector.architecture.layers import Size, level_size
from detector.config.detector import Detector


def anchors(config: Detector, size: Size, device: torch.device | str = "cpu") -> Tensor:
    """float32 [A, 4] xyxy px for an image of `size` (height, width) px; must not be modified.

    In the order of the detector's outputs: level by level (finest first), cells row by row, the
    anchors of a cell innermost. Those of cell i of a level have their centre at
    (i + anchors.offset) · stride, which may be outside an image whose side is no multiple of the
    stride. Not clipped.
    """
    return priors(config, size, device).anchors


@dataclass(frozen=True, eq=False)
class Priors:
    """The boxes that the predictions for an image size refer to."""

    anchors: Tensor
    """float32 [A, 4] xyxy px, which are assigned to faces; see `anchors`."""
    references: Tensor
    """float32 [A, 4] xyxy px, which deltas are relative to: the anchors, or, if head.coding is in
    strides, squares of one stride with the same centres."""
    cells: Tensor
    """float32 [A, 4] xyxy px, the cells of the feature maps that the predictions come from."""
    counts: tuple[int, ...]
    """Number of anchors of each level, finest first; their sum is A."""
    coding: str = "anchor"
    """As head.coding."""


def priors(config: Detector, size: Size, device: torch.device | str = "cpu") -> Priors:
    """The priors of a design for an image of `size` (height, width) px; must not be modified."""
    height, width = size
    return _priors(config, (height, width), torch.device(device), _cached)


def symbolic_priors(config: Detector, size: Size) -> Priors:
    """The priors for a symbolic size, while a graph is exported."""
    return _priors(config, size, torch.device("cpu"), _boxes)


def symbolic_references(config: Detector, size: Size) -> Tensor:
    """`references` of `symbolic_priors` alone, which are less to trace."""
    shapes = config.anchor_shapes() if config.head.coding == "anchor" else _squares(config)
    return _boxes(shapes, config.neck.levels, config.anchors.offset, size, torch.device("cpu"))


def _squares(config: Detector) -> tuple:
    """Of one stride, as many for each level as it has anchors in a cell."""
    levels, shapes = config.neck.levels, config.anchor_shapes()
    return tuple(((2**level, 2**level),) * len(own) for level, own in zip(levels, shapes))


def _priors(config: Detector, size: Size, device: torch.device, boxes_of) -> Priors:
    levels, offset, shapes = config.neck.levels, config.anchors.offset, config.anchor_shapes()
    squares = _squares(config)
    boxes = boxes_of(shapes, levels, offset, size, device)
    references = (
        boxes if config.head.coding == "anchor" else boxes_of(squares, levels, offset, size, device)
    )
    counts = tuple(
        height * width * len(own)
        for own, (height, width) in zip(shapes, (level_size(size, level) for level in levels))
    )
    return Priors(
        boxes, references, boxes_of(squares, levels, 0.5, size, device), counts, config.head.coding
    )


def _boxes(
    shapes: tuple, levels: tuple[int, ...], offset: float, size: Size, device: torch.device
) -> Tensor:
    result = []
    for level_shapes, level in zip(shapes, levels):
        height, width = level_size(size, level)
        stride = 2**level
        y = (torch.arange(height, dtype=torch.float32) + offset) * stride
        x = (torch.arange(width, dtype=torch.float32) + offset) * stride
        centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # [H, W, (x, y)]
        half = torch.tensor(level_shapes, dtype=torch.float32) / 2  # [N, (w, h)]
        centers = centers[:, :, None]
        result.append(torch.cat((centers - half, centers + half), dim=-1).reshape(-1, 4))
    return torch.cat(result).to(device)


_cached = lru_cache(maxsize=32)(_boxes)
