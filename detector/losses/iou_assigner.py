"""Which anchor learns which face: by overlap, and what all rules have in common.

Nothing here asks the device for a value: shapes follow from the number of faces and anchors alone,
so that a GPU is never waited for, and a step can be captured as a graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from detector.boxes.coding import area, iou
from detector.config.recipe import Loss
from detector.data.targets import Targets

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1
INSIDE = 0.5  # an anchor with at least this share of its area in an ignored face is not background


class Matches(NamedTuple):
    labels: Tensor
    """int8 [B, A]: POSITIVE, NEGATIVE or NEITHER."""
    faces: Tensor
    """int64 [B, A]: for positives, the row of their face in the concatenation of all images'."""


def match(targets: Targets, anchors: Tensor, settings: Loss) -> Matches:
    """Matches the anchors with the faces of each image, as RetinaFace does, free of its faults.

    An anchor learns the face it overlaps most, from IoU `match_iou` on. Each face claims its best
    anchor, from IoU `force_iou` on; of two that claim the same anchor the larger overlap wins.
    Faces that no anchor fits (tiny ones: their log targets would run away), ignored faces and the
    anchors on them are neither learnt nor taken for background. Boxes without area do not exist.

    Args:
        anchors: float32 [A, 4] xyxy px.
    """
    if not len(targets.boxes):
        return no_matches(targets.images, anchors)

    overlaps = iou(targets.boxes, anchors)  # [F, A], F faces of all images
    best, best_anchor = overlaps.max(1)
    exists = targets.exists
    learnt = exists & ~targets.ignore & (best >= min(settings.match_iou, settings.force_iou))
    neither = near_faces(targets, exists & ~learnt, anchors, settings.match_iou, overlaps)

    overlaps.masked_fill_(~learnt[:, None], -1.0)
    claims = (learnt & (best >= settings.force_iou)).to(overlaps)
    # a claim is above every IoU, and claims are still in the order of theirs
    overlaps.scatter_add_(1, best_anchor[:, None], 2.0 * claims[:, None])
    return best_faces(overlaps, targets, settings.match_iou, neither)


def no_matches(images: int, anchors: Tensor) -> Matches:
    """All background."""
    labels = torch.zeros(images, len(anchors), dtype=torch.int8, device=anchors.device)
    return Matches(labels, labels.long())


def best_faces(merits: Tensor, targets: Targets, least: float, neither: Tensor) -> Matches:
    """Each anchor learns the face of highest merit (of equal ones the first), if that is at least
    `least`.

    Args:
        merits: [F, A], of each face of the batch at each anchor.
        neither: bool [B, A], of the other anchors those that are not background.
    """
    rows = targets.image[:, None].expand_as(merits)
    best = merits.new_full(neither.shape, -torch.inf).scatter_reduce_(0, rows, merits, "amax")
    # Rows as float32, in which torch reduces ten times as fast as in integers; exact below 2**24.
    faces = torch.arange(len(merits), dtype=torch.float32, device=merits.device)[:, None]
    last = len(merits) - 1
    owners = faces.where(merits == best[targets.image], last)
    matched = merits.new_full(neither.shape, last, dtype=torch.float32)
    matched.scatter_reduce_(0, rows, owners, "amin")
    labels = neither.to(torch.int8).neg_().masked_fill_(best >= least, POSITIVE)  # NEITHER is -1
    return Matches(labels, matched.long())


def near_faces(
    targets: Targets, vague: Tensor, anchors: Tensor, match_iou: float, overlaps: Tensor
) -> Tensor:
    """bool [B, A]: anchors on a face that exists but is not learnt (`vague`, bool [F]).

    Args:
        overlaps: IoU [F, A] of faces and anchors.
    """
    if vague.device.type == "cpu":  # few faces are; to select them would be to wait for a GPU
        targets, overlaps, vague = targets.rows(vague), overlaps[vague], vague[vague]
    # At least its best anchors (a tiny face lies in several, with equal IoU) …
    least = overlaps.amax(1, keepdim=True).clamp(torch.finfo(overlaps.dtype).tiny, match_iou)
    near = overlaps >= least
    # … and those mostly inside it (a region of a crowd), of areas a and b: IoU = I / (a + b - I).
    own = area(anchors)
    # I >= INSIDE · b where IoU · (a + b - INSIDE · b) >= INSIDE · b.
    near |= (area(targets.boxes)[:, None] + (1 - INSIDE) * own).mul_(overlaps) >= INSIDE * own
    return any_by_image(near.logical_and_(vague[:, None]), targets)


def any_by_image(flags: Tensor, targets: Targets) -> Tensor:
    """bool [B, A]: whether any face of an image has the flag; `flags` is bool [F, A]."""
    rows = targets.image[:, None].expand_as(flags)
    hits = torch.zeros(targets.images, flags.shape[1], device=flags.device)
    return hits.scatter_reduce_(0, rows, flags.float(), "amax").bool()
