"""Simplified optimal transport assignment (SimOTA of YOLOX, Ge et al. 2021), as YuNet uses it: the
constants are those of its configs/yunet_n.py and of the MMDetection assigner that it names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.anchors import Priors
from detector.boxes import iou
from detector.matching import Matches, best_faces, near_faces, no_matches
from detector.recipe import Loss

MOST = 10          # predictions whose summed IoU tells how many cells learn a face
IOU_WEIGHT = 3.0   # of the box in the cost, over that of the score
FAR = 100.0        # cost of a cell not both in a face and near its centre: above all other costs
TINY = 1e-7


@torch.no_grad()
def simota(boxes: Sequence[Tensor], ignore: Sequence[Tensor], scores: Tensor, predicted: Tensor,
           priors: Priors, settings: Loss) -> Matches:
    """Matches cells with the faces of each image by what the network predicts there.

    A face may be learnt by cells whose middle is in it or within `centre_radius` strides of its
    centre (along each axis); cells that are both are preferred to all others. As many of them as
    its best predictions' IoUs add up to, at least one, learn it: those of lowest cost. A cell that
    several faces want goes to the one it costs least. Ignored faces are neither learnt nor taken
    for background.

    Args:
        boxes, ignore: as those of `matching.match`.
        scores: [B, A] in [0, 1], as predicted.
        predicted: [B, A, 4] xyxy px, as predicted.
    """
    faces, ignored = torch.cat(list(boxes)), torch.cat(list(ignore))
    counts = [len(b) for b in boxes]
    if not len(faces):
        return no_matches(len(counts), priors.cells)
    exists = (faces[:, 2:] > faces[:, :2]).all(1)
    merits = torch.full((len(faces), len(priors.cells)), -torch.inf, device=faces.device)
    start = 0
    for i, count in enumerate(counts):
        learnt = start + (exists & ~ignored)[start:start + count].nonzero()[:, 0]
        if len(learnt):
            merits[learnt] = _merits(faces[learnt], scores[i], predicted[i], priors.cells,
                                     settings.centre_radius)
        start += count
    learnt = (merits > -torch.inf).any(1)
    neither = near_faces(faces, exists & ~learnt, counts, priors.cells, settings.match_iou)
    return best_faces(merits, counts, torch.finfo(merits.dtype).min, neither)


def _merits(faces: Tensor, scores: Tensor, predicted: Tensor, cells: Tensor,
            radius: float) -> Tensor:
    """[N, A]: the negative cost of the cells that each face of an image wants, else -inf."""
    points, strides = (cells[:, :2] + cells[:, 2:]) / 2, cells[:, 2] - cells[:, 0]
    inside = ((points > faces[:, None, :2]) & (points < faces[:, None, 2:])).all(2)
    centres = (faces[:, :2] + faces[:, 2:]) / 2
    near = (points - centres[:, None]).abs().amax(2) < radius * strides
    open_cells = (inside | near).any(0).nonzero()[:, 0]
    merits = torch.full(inside.shape, -torch.inf, device=faces.device)
    if not len(open_cells):
        return merits

    overlaps = iou(faces, predicted[open_cells])  # [N, V]
    unsure = -scores[open_cells].clamp(TINY, 1).sqrt().log()
    costs = unsure + IOU_WEIGHT * -(overlaps + TINY).log()
    costs += FAR * ~(inside & near)[:, open_cells]
    most = min(MOST, len(open_cells))
    wanted = overlaps.topk(most, dim=1).values.sum(1).int().clamp(min=1)  # [N]
    lowest, order = costs.topk(most, dim=1, largest=False)
    taken = torch.arange(most, device=faces.device) < wanted[:, None]
    chosen = torch.full_like(costs, -torch.inf).scatter_(
        1, order, (-lowest).where(taken, -torch.inf))
    merits[:, open_cells] = chosen
    return merits
