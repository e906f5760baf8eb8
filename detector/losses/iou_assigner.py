"""Assigner by overlap (max-IoU matching of SSD, Liu et al. 2016, as RetinaFace has it)."""

from __future__ import annotations

from collections.abc import Mapping

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


def assign_iou(
    targets: Targets, priors: Priors, settings: Loss, outputs: Mapping[str, Tensor] | None = None
) -> Matches:
    """Assigns anchors to the faces of each image as RetinaFace does, without its flaws.

    An anchor learns the face it overlaps most, from IoU `match_iou` on. Each face claims its best
    anchor, from IoU `force_iou` on; of two faces that claim the same anchor the larger overlap
    wins. Faces that no anchor fits (tiny ones: the logarithms in their deltas would diverge) and
    ignored faces are not learnt, and the anchors on them are not negative, except as
    `settings.unmatched` has it. Boxes without area do not exist.
    """
    if not len(targets.boxes):
        return all_negative(targets.images, priors.anchors)

    overlaps = iou(targets.boxes, priors.anchors)  # [F, A], F faces of all images
    best, best_anchor = overlaps.max(1)
    exists = targets.exists
    learnt = exists & ~targets.ignore & (best >= min(settings.match_iou, settings.force_iou))
    ambiguous = ambiguous_anchors(
        targets,
        not_learnt(targets, learnt, settings),
        priors.anchors,
        settings.match_iou,
        overlaps,
    )

    overlaps.masked_fill_(~learnt[:, None], -1.0)
    claims = (learnt & (best >= settings.force_iou)).to(overlaps)
    # A claim exceeds every IoU, and claims keep the order of their IoUs.
    overlaps.scatter_add_(1, best_anchor[:, None], 2.0 * claims[:, None])
    return assign_best(overlaps, targets, settings.match_iou, ambiguous)
