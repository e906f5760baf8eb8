"""Losses of predicted boxes against their faces, pair by pair: smooth L1, GIoU, DIoU, EIoU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.boxes.coding import area, product

EIOU_BETA = 0.1  # below this loss eiou is quadratic (ShiqiYu/libfacedetection.train)
TINY = 1e-7


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU [...] in [0, 1] of boxes [..., 4] and [..., 4], which may broadcast."""
    overlap = _overlap(a, b)
    return overlap / (area(a) + area(b) - overlap).clamp(min=TINY)


def smooth_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 loss [N], summed over the four deltas [N, 4]."""
    return F.smooth_l1_loss(predicted, target, reduction="none").sum(1)


def giou(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al. 2019) [N], from 0 to 2."""
    overlap = _overlap(predicted, target)
    union = area(predicted) + area(target) - overlap
    hull = product(_hull_sides(predicted, target))
    return 1 - overlap / union.clamp(min=TINY) + (hull - union) / hull.clamp(min=TINY)


def diou(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU + squared distance of the centres over the squared diagonal of the hull (Zheng et al.
    2020) [N], from 0 to 2."""
    offsets = (predicted[:, :2] + predicted[:, 2:] - target[:, :2] - target[:, 2:]) / 2
    diagonal = _hull_sides(predicted, target).square().sum(-1)
    return 1 - paired_iou(predicted, target) + offsets.square().sum(-1) / diagonal.clamp(min=TINY)


def eiou(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - extended IoU (Peng & Yu 2021), quadratic below EIOU_BETA [N]; as YuNet's own training
    code has it (ShiqiYu/libfacedetection.train, mmdet/models/losses/iou_loss.py).

    The extended intersection of disjoint boxes is negative: the more so, the farther apart they
    are.
    """
    corner = torch.minimum(predicted[:, :2], target[:, :2])
    low = torch.maximum(predicted[:, :2], target[:, :2]) - corner
    high = torch.minimum(predicted[:, 2:], target[:, 2:]) - corner
    least, most = torch.minimum(low, high), torch.maximum(low, high)
    overlap = product(high) + product(least) - low[:, 0] * most[:, 1] - most[:, 0] * low[:, 1]
    union = area(predicted) + area(target) - overlap
    loss = 1 - overlap / union.clamp(min=TINY)
    return F.smooth_l1_loss(loss, torch.zeros_like(loss), reduction="none", beta=EIOU_BETA)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    return product(sides.clamp(min=0))


def _hull_sides(a: Tensor, b: Tensor) -> Tensor:
    """Width and height [N, 2] of the smallest box around both."""
    return torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
