"""Adaptive training sample selection (ATSS, Zhang et al. 2020)."""

from __future__ import annotations

import torch

from detector.boxes.anchors import Priors
from detector.boxes.coding import iou
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses.iou_assigner import Matches, best_faces, near_faces, no_matches

TIE = 1e-9  # px² by which an anchor is farther away than the one before it


def atss(targets: Targets, priors: Priors, settings: Loss) -> Matches:
    """Matches the anchors with the faces of each image by statistics of their overlaps.

    A face looks at the `candidates` anchors nearest to its centre on each level. Those whose IoU
    reaches the mean plus one standard deviation of all its candidates', and whose centre is in the
    face, learn it; an anchor that several faces want goes to the one it overlaps most. Faces that
    no anchor learns and ignored ones are neither learnt nor taken for background.
    """
    faces, anchors = targets.boxes, priors.anchors
    if not len(faces):
        return no_matches(targets.images, anchors)

    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    away = (faces[:, None, :2] + faces[:, None, 2:]) / 2 - centres
    # Of anchors as near, such as those of one cell, the first ones: on every device the same.
    distances = away.double().square().sum(2) + TIE * torch.arange(
        len(anchors), device=anchors.device
    )
    nearest, start = [], 0
    for count in priors.counts:
        level = distances[:, start : start + count]
        nearest.append(
            level.topk(min(settings.candidates, count), dim=1, largest=False).indices + start
        )
        start += count
    nearest = torch.cat(nearest, dim=1)  # [F, K]

    overlaps = iou(faces, anchors)
    own = overlaps.gather(1, nearest)
    least = own.mean(1) + own.std(1, correction=min(1, own.shape[1] - 1))
    points = centres[nearest]  # [F, K, 2]
    inside = ((points > faces[:, None, :2]) & (points < faces[:, None, 2:])).all(2)
    exists = targets.exists
    wanted = (own >= least[:, None]) & inside & (exists & ~targets.ignore)[:, None]

    neither = near_faces(targets, exists & ~wanted.any(1), anchors, settings.match_iou, overlaps)
    merits = torch.full_like(overlaps, -1.0).scatter_(1, nearest, own.where(wanted, -1.0))
    return best_faces(merits, targets, 0.0, neither)
