"""Box coding, areas and IoU as pure functions. Boxes are xyxy in pixels, without the +1 convention.

Deltas are relative to a reference box, in one of three codings. `anchor`, SSD's (Liu et al. 2016):
offsets of the centre in sizes of the reference, divided by 0.1, and logarithms of the size ratios,
divided by 0.2. `point` (YOLOX, Ge et al. 2021): the same without those divisors. `distance` (FCOS,
Tian et al. 2019): distances from the reference's centre to the left, top, right and bottom side, in
sizes of the reference. Landmarks are offsets from the reference's centre, coded like the centre.
"""

from __future__ import annotations

import torch
from torch import Tensor

CENTER_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
MAX_LOG_SIZE = 16.0
ANCHOR, DISTANCE, POINT = "anchor", "distance", "point"


def area(boxes: Tensor) -> Tensor:
    """Areas [...] in px² of boxes [..., 4]; 0 where x2 < x1 or y2 < y1."""
    return product((boxes[..., 2:] - boxes[..., :2]).clamp(min=0))


def product(sides: Tensor) -> Tensor:
    """Products [...] of [..., 2]; the gradient of `prod` would wait for a GPU to count zeros."""
    return sides[..., 0] * sides[..., 1]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (IoU) [N, M] in [0, 1] of boxes [N, 4] and [M, 4]; 0 if both are
    empty."""
    # By coordinate and in place: three times as fast as with [N, M, 2] tensors.
    x1, y1, x2, y2 = a.unbind(1)
    x1, y1, x2, y2 = x1[:, None], y1[:, None], x2[:, None], y2[:, None]
    u1, v1, u2, v2 = b.t().contiguous()
    width = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    height = torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0)
    overlap = width.mul_(height)
    union = (area(a)[:, None] + area(b)).sub_(overlap)
    return overlap.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def encode(boxes: Tensor, references: Tensor, coding: str = ANCHOR) -> Tensor:
    """Deltas [..., 4] of boxes [..., 4] of positive size, relative to references [..., 4]."""
    origins, units = _center_size(references)
    if coding == DISTANCE:
        return torch.cat((origins - boxes[..., :2], boxes[..., 2:] - origins), dim=-1) / torch.cat(
            (units, units), dim=-1
        )
    centers, sizes = _center_size(boxes)
    center_variance, size_variance = _variances(coding)
    return torch.cat(
        ((centers - origins) / (units * center_variance), (sizes / units).log() / size_variance),
        dim=-1,
    )


def decode(deltas: Tensor, references: Tensor, coding: str = ANCHOR) -> Tensor:
    """Boxes [..., 4] xyxy px from deltas [..., 4]: the inverse of `encode`.

    Boxes are at most exp(MAX_LOG_SIZE) times as large as their reference, so that none is infinite.
    With `distance`, negative deltas can give x2 < x1 or y2 < y1.
    """
    origins, units = _center_size(references)
    if coding == DISTANCE:
        return torch.cat(
            (origins - deltas[..., :2] * units, origins + deltas[..., 2:] * units), dim=-1
        )
    center_variance, size_variance = _variances(coding)
    centers = origins + deltas[..., :2] * center_variance * units
    half = units * (deltas[..., 2:] * size_variance).clamp(max=MAX_LOG_SIZE).exp() / 2
    return torch.cat((centers - half, centers + half), dim=-1)


def encode_landmarks(points: Tensor, references: Tensor, coding: str = ANCHOR) -> Tensor:
    """Deltas [..., 10] of points [..., 5, 2] px, relative to references [..., 4]; keeps NaN."""
    centers, sizes = _center_size(references)
    variance, _ = _variances(coding)
    deltas = (points - centers[..., None, :]) / (sizes[..., None, :] * variance)
    return deltas.flatten(-2)


def decode_landmarks(deltas: Tensor, references: Tensor, coding: str = ANCHOR) -> Tensor:
    """Points [..., 5, 2] px from deltas [..., 10]: the inverse of `encode_landmarks`."""
    centers, sizes = _center_size(references)
    variance, _ = _variances(coding)
    offsets = deltas.unflatten(-1, (5, 2)) * variance * sizes[..., None, :]
    return centers[..., None, :] + offsets


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] clipped to an image of `size` (height, width) px."""
    height, width = size
    return torch.stack(
        (
            boxes[..., 0].clamp(0, width),
            boxes[..., 1].clamp(0, height),
            boxes[..., 2].clamp(0, width),
            boxes[..., 3].clamp(0, height),
        ),
        dim=-1,
    )


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def _variances(coding: str) -> tuple[float, float]:
    """Divisors of the offsets of centres, and of log sizes."""
    return (CENTER_VARIANCE, SIZE_VARIANCE) if coding == ANCHOR else (1.0, 1.0)
