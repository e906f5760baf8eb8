"""Simplified optimal transport assignment (SimOTA of YOLOX, Ge et al. 2021), as YuNet uses it: the
constants are those of its configs/yunet_n.py and of the MMDetection assigner that it names."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.boxes.anchors import Priors
from detector.boxes.coding import iou
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses.box_overlap import paired_iou
from detector.losses.iou_assigner import Matches, any_by_image, best_faces, near_faces, no_matches

MOST = 10  # predictions whose summed IoU tells how many cells learn a face
IOU_WEIGHT = 3.0  # of the box in the cost, over that of the score
FAR = 100.0  # cost of a cell not both in a face and near its centre: above all other costs
TINY = 1e-7


@torch.no_grad()
def simota(
    targets: Targets, scores: Tensor, predicted: Tensor, priors: Priors, settings: Loss
) -> Matches:
    """Matches cells with the faces of each image by what the network predicts there.

    A face may be learnt by cells whose middle is in it or within `centre_radius` strides of its
    centre (along each axis), or so of another face that is learnt; cells that are both are
    preferred to all others. As many of them as its best predictions' IoUs add up to, at least one,
    learn it: those of lowest cost. A cell that several faces want goes to the one it costs least.
    Ignored faces are neither learnt nor taken for background.

    Args:
        scores: [B, A] in [0, 1], as predicted.
        predicted: [B, A, 4] xyxy px, as predicted.
    """
    faces, cells = targets.boxes, priors.cells
    if not len(faces):
        return no_matches(targets.images, cells)
    learnable = (targets.exists & ~targets.ignore)[:, None]
    points, strides = (cells[:, :2] + cells[:, 2:]) / 2, cells[:, 2] - cells[:, 0]
    inside = ((points > faces[:, None, :2]) & (points < faces[:, None, 2:])).all(2) & learnable
    centres = (faces[:, :2] + faces[:, 2:]) / 2
    near = (
        (points - centres[:, None]).abs().amax(2) < settings.centre_radius * strides
    ) & learnable
    open_cells = any_by_image(inside | near, targets)[targets.image] & learnable  # [F, A]

    overlaps = paired_iou(faces[:, None], predicted[targets.image]).where(open_cells, 0)
    unsure = -scores.clamp(TINY, 1).sqrt().log()
    costs = unsure[targets.image] + IOU_WEIGHT * -(overlaps + TINY).log()
    costs = (costs + FAR * ~(inside & near)).where(open_cells, torch.inf)
    most = min(MOST, len(cells))
    wanted = overlaps.topk(most, dim=1).values.sum(1).int().clamp(min=1)  # [F]
    lowest, order = costs.topk(most, dim=1, largest=False)
    taken = torch.arange(most, device=faces.device) < wanted[:, None]
    merits = torch.full_like(costs, -torch.inf).scatter_(
        1, order, (-lowest).where(taken, -torch.inf)
    )
    learnt = (merits > -torch.inf).any(1)
    neither = near_faces(
        targets, targets.exists & ~learnt, cells, settings.match_iou, iou(faces, cells)
    )
    return best_faces(merits, targets, torch.finfo(merits.dtype).min, neither)
