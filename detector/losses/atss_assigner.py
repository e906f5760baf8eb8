"""Assigner by adaptive training sample selection (ATSS, Zhang et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detector.boxes.anchors import Priors
from detector.boxes.coding import iou
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses.assignment import (
    Matches,
    all_negative,
    ambiguous_anchors,
    assign_best,
    not_learnt,
)

TIE_BREAK = 1e-9  # px² added to an anchor's squared distance for each anchor before it


def assign_atss(
    targets: Targets, priors: Priors, settings: Loss, outputs: Mapping[str, Tensor] | None = None
) -> Matches:
    """Assigns anchors to the faces of each image by statistics of their overlaps.

    The candidates of a face are the `candidates` anchors nearest to its centre on each level. Those
    whose IoU is at least the mean plus one standard deviation of all its candidates', and whose
    centre is inside the face, learn it; of several such faces an anchor learns the one it overlaps
    most. Faces without positive anchors and ignored faces are not learnt, and the anchors on them
    are not negative, except as `settings.unmatched` has it.
    """
    faces, anchors = targets.boxes, priors.anchors
    if not len(faces):
        return all_negative(targets.images, anchors)

    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    offsets = (faces[:, None, :2] + faces[:, None, 2:]) / 2 - centres
    # The first of equally near anchors, such as those of one cell: the same on every device.
    distances = offsets.double().square().sum(2) + TIE_BREAK * torch.arange(
        len(anchors), device=anchors.device
    )
    nearest, start = [], 0
    for count in priors.counts:
        level = distances[:, start : start + count]
        nearest.append(
            level.topk(min(settings.candidates, count), dim=1, largest=False).indices + start
        )
        start += count
    candidates = torch.cat(nearest, dim=1)  # [F, K]

    overlaps = iou(faces, anchors)
    own = overlaps.gather(1, candidates)
    threshold = own.mean(1) + own.std(1, correction=min(1, own.shape[1] - 1))
    points = centres[candidates]  # [F, K, 2]
    inside = ((points > faces[:, None, :2]) & (points < faces[:, None, 2:])).all(2)
    exists = targets.exists
    positive = (own >= threshold[:, None]) & inside & (exists & ~targets.ignore)[:, None]

    ambiguous = ambiguous_anchors(
        targets,
        not_learnt(targets, positive.any(1), settings),
        anchors,
        settings.match_iou,
        overlaps,
    )
    quality = torch.full_like(overlaps, -1.0).scatter_(1, candidates, own.where(positive, -1.0))
    return assign_best(quality, targets, 0.0, ambiguous)
