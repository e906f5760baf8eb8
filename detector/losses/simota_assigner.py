"""Assigner by simplified optimal transport (SimOTA of YOLOX, Ge et al. 2021), as YuNet uses it: the
constants are those of its configs/yunet_n.py and of the MMDetection assigner that it names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detector.boxes.anchors import Priors
from detector.boxes.coding import decode, iou
from detector.boxes.logits import face_scores
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses.assignment import (
    Matches,
    all_negative,
    ambiguous_anchors,
    any_by_image,
    assign_best,
    not_learnt,
)
from detector.losses.box_losses import paired_iou

CANDIDATES = 10  # predictions whose summed IoU is the number of cells that learn a face
IOU_WEIGHT = 3.0  # of the box in the cost, over that of the score
FAR = 100.0  # cost of a cell not both in a face and near its centre: above all other costs
TINY = 1e-7


@torch.no_grad()
def assign_simota(
    targets: Targets, priors: Priors, settings: Loss, outputs: Mapping[str, Tensor] | None
) -> Matches:
    """Assigns cells to the faces of each image by what the network predicts there.

    A face may be learnt by cells whose middle is inside it or within `centre_radius` strides of its
    centre (along each axis), or so of another face that is learnt; cells that are both are
    preferred to all others. As many of them learn it as the IoUs of its best predictions add up
    to, at least one: those of lowest cost. A cell that several faces take learns the one of lowest
    cost there, which need not be one of them. The anchors on ignored faces are not negative.

    Args:
        outputs: predictions of the detector; required here.
    """
    assert outputs is not None, "SimOTA assigns by predictions"
    faces, cells = targets.boxes, priors.cells
    if not len(faces):
        return all_negative(targets.images, cells)
    predicted = decode(outputs["box_deltas"].float(), priors.references, priors.coding)
    scores = face_scores(outputs)
    learnable = (targets.exists & ~targets.ignore)[:, None]
    points, strides = (cells[:, :2] + cells[:, 2:]) / 2, cells[:, 2] - cells[:, 0]
    inside = ((points > faces[:, None, :2]) & (points < faces[:, None, 2:])).all(2) & learnable
    centres = (faces[:, :2] + faces[:, 2:]) / 2
    near = (
        (points - centres[:, None]).abs().amax(2) < settings.centre_radius * strides
    ) & learnable
    valid = any_by_image(inside | near, targets)[targets.image] & learnable  # [F, A]

    overlaps = paired_iou(faces[:, None], predicted[targets.image]).where(valid, 0)
    score_cost = -scores.clamp(TINY, 1).sqrt().log()
    costs = score_cost[targets.image] + IOU_WEIGHT * -(overlaps + TINY).log()
    costs = (costs + FAR * ~(inside & near)).where(valid, torch.inf)
    most = min(CANDIDATES, len(cells))
    counts = overlaps.topk(most, dim=1).values.sum(1).int().clamp(min=1)  # [F]
    lowest, order = costs.topk(most, dim=1, largest=False)
    positive = (torch.arange(most, device=faces.device) < counts[:, None]) & lowest.isfinite()
    taken = torch.zeros_like(valid).scatter_(1, order, positive)  # [F, A]
    contested = _taken_by_several(taken, targets)[targets.image]
    quality = (-costs).where(taken | contested, -torch.inf)
    ambiguous = ambiguous_anchors(
        targets,
        not_learnt(targets, taken.any(1), settings),
        cells,
        settings.match_iou,
        iou(faces, cells),
    )
    return assign_best(quality, targets, torch.finfo(quality.dtype).min, ambiguous)


def _taken_by_several(taken: Tensor, targets: Targets) -> Tensor:
    """bool [B, A]: cells that more than one face of the image takes; `taken` is bool [F, A]."""
    rows = targets.image[:, None].expand_as(taken)
    counts = torch.zeros(targets.images, taken.shape[1], device=taken.device)
    return counts.scatter_add_(0, rows, taken.float()) > 1
