"""Boxes as pure functions on tensors: xyxy in pixels, corners without the +1 convention.

Deltas are SSD's (Liu et al. 2016): centre offsets in anchor sizes over 0.1, log size ratios over
0.2; landmarks are offsets of points from the anchor's centre, like those of centres.
"""

from __future__ import annotations

import torch
from torch import Tensor

CENTER_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
MAX_LOG_SIZE = 16.0


def area(boxes: Tensor) -> Tensor:
    """[N] square pixels of boxes [N, 4]; 0 where a box is turned inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [N, M] in [0, 1] of boxes [N, 4] and [M, 4]; 0 where both are
    empty."""
    # By coordinate and in place: a third of the time of [N, M, 2] tensors.
    x1, y1, x2, y2 = a.unbind(1)
    x1, y1, x2, y2 = x1[:, None], y1[:, None], x2[:, None], y2[:, None]
    u1, v1, u2, v2 = b.t().contiguous()
    width = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    height = torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0)
    overlap = width.mul_(height)
    union = (area(a)[:, None] + area(b)).sub_(overlap)
    return overlap.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Deltas [..., 4] of boxes [..., 4] of positive size against anchors [..., 4]."""
    centers, sizes = _center_size(boxes)
    anchor_centers, anchor_sizes = _center_size(anchors)
    return torch.cat(((centers - anchor_centers) / (anchor_sizes * CENTER_VARIANCE),
                      (sizes / anchor_sizes).log() / SIZE_VARIANCE), dim=-1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes [..., 4] xyxy px from deltas [..., 4]: the inverse of `encode`.

    No box is more than exp(MAX_LOG_SIZE) times as large as its anchor, so that none is infinite.
    """
    anchor_centers, anchor_sizes = _center_size(anchors)
    centers = anchor_centers + deltas[..., :2] * CENTER_VARIANCE * anchor_sizes
    half = anchor_sizes * (deltas[..., 2:] * SIZE_VARIANCE).clamp(max=MAX_LOG_SIZE).exp() / 2
    return torch.cat((centers - half, centers + half), dim=-1)


def encode_landmarks(points: Tensor, anchors: Tensor) -> Tensor:
    """Deltas [..., 10] of points [..., 5, 2] px against anchors [..., 4]; NaN stays NaN."""
    centers, sizes = _center_size(anchors)
    deltas = (points - centers[..., None, :]) / (sizes[..., None, :] * CENTER_VARIANCE)
    return deltas.flatten(-2)


def decode_landmarks(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Points [..., 5, 2] px from deltas [..., 10]: the inverse of `encode_landmarks`."""
    centers, sizes = _center_size(anchors)
    offsets = deltas.unflatten(-1, (5, 2)) * CENTER_VARIANCE * sizes[..., None, :]
    return centers[..., None, :] + offsets


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] cut off at the borders of an image of `size` (height, width) px."""
    height, width = size
    return torch.stack((boxes[..., 0].clamp(0, width), boxes[..., 1].clamp(0, height),
                        boxes[..., 2].clamp(0, width), boxes[..., 3].clamp(0, height)), dim=-1)


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
