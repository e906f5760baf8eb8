"""What all assigners have in common: their result, and its two last steps.

Nothing here asks the device for a value: shapes follow from the numbers of faces and anchors alone,
so that no assigner waits for a GPU, and a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from detector.boxes.coding import area
from detector.config.recipe import Loss
from detector.data.targets import Targets

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
INSIDE = 0.5  # share of an anchor's area in an ignored face from which on it is no negative


class Matches(NamedTuple):
    labels: Tensor
    """int8 [B, A]: POSITIVE, NEGATIVE or IGNORED."""
    faces: Tensor
    """int64 [B, A]: for positive anchors, the row of their face in `Targets.boxes`."""


def all_negative(images: int, anchors: Tensor) -> Matches:
    """The matches of a batch without faces."""
    labels = torch.zeros(images, len(anchors), dtype=torch.int8, device=anchors.device)
    return Matches(labels, labels.long())


def assign_best(quality: Tensor, targets: Targets, threshold: float, ambiguous: Tensor) -> Matches:
    """Assigns each anchor the face of highest quality (the first of equal ones), if that is at
    least `threshold`.

    Args:
        quality: [F, A], of each face of the batch at each anchor.
        ambiguous: bool [B, A], those of the other anchors that are not negative.
    """
    rows = targets.image[:, None].expand_as(quality)
    best = quality.new_full(ambiguous.shape, -torch.inf).scatter_reduce_(0, rows, quality, "amax")
    # Indices as float32, which torch reduces ten times as fast as integers; exact below 2**24.
    indices = torch.arange(len(quality), dtype=torch.float32, device=quality.device)[:, None]
    last = len(quality) - 1
    candidates = indices.where(quality == best[targets.image], last)
    faces = quality.new_full(ambiguous.shape, last, dtype=torch.float32)
    faces.scatter_reduce_(0, rows, candidates, "amin")
    # True → IGNORED, which is -1
    labels = ambiguous.to(torch.int8).neg_().masked_fill_(best >= threshold, POSITIVE)
    return Matches(labels, faces.long())


def ambiguous_anchors(
    targets: Targets, unassigned: Tensor, anchors: Tensor, match_iou: float, overlaps: Tensor
) -> Tensor:
    """bool [B, A]: anchors on a face that exists but is not learnt, so neither positive nor
    negative.

    Args:
        unassigned: bool [F], those faces.
        overlaps: IoU [F, A] of faces and anchors.
    """
    if unassigned.device.type == "cpu":  # few faces are; selecting them would wait for a GPU
        rows = unassigned
        targets, overlaps = targets.map(lambda values: values[rows]), overlaps[rows]
        unassigned = unassigned[rows]
    # At least the face's best anchors (a tiny face lies in several, with equal IoU) …
    threshold = overlaps.amax(1, keepdim=True).clamp(torch.finfo(overlaps.dtype).tiny, match_iou)
    ambiguous = overlaps >= threshold
    # … and those mostly inside it (a region of a crowd), of areas a and b: IoU = I / (a + b - I).
    own = area(anchors)
    # I >= INSIDE · b where IoU · (a + b - INSIDE · b) >= INSIDE · b.
    ambiguous |= (area(targets.boxes)[:, None] + (1 - INSIDE) * own).mul_(overlaps) >= INSIDE * own
    return any_by_image(ambiguous.logical_and_(unassigned[:, None]), targets)


def not_learnt(targets: Targets, learnt: Tensor, settings: Loss) -> Tensor:
    """bool [F]: faces whose anchors are to be ignored: those to be ignored themselves and, unless
    `settings.unmatched` is background, those that are not `learnt` (bool [F])."""
    return targets.exists & (targets.ignore if settings.unmatched == "background" else ~learnt)


def any_by_image(flags: Tensor, targets: Targets) -> Tensor:
    """bool [B, A]: whether any face of an image has the flag; `flags` is bool [F, A]."""
    rows = targets.image[:, None].expand_as(flags)
    hits = torch.zeros(targets.images, flags.shape[1], device=flags.device)
    return hits.scatter_reduce_(0, rows, flags.float(), "amax").bool()
