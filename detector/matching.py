"""Which anchor learns which face: by overlap, and what all rules have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detector.boxes import area, iou
from detector.recipe import Loss

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1
INSIDE = 0.5  # an anchor with at least this share of its area in an ignored face is not background


class Matches(NamedTuple):
    labels: Tensor
    """int8 [B, A]: POSITIVE, NEGATIVE or NEITHER."""
    faces: Tensor
    """int64 [B, A]: for positives, the row of their face in the concatenation of all images'."""


def match(boxes: Sequence[Tensor], ignore: Sequence[Tensor], anchors: Tensor,
          settings: Loss) -> Matches:
    """Matches the anchors with the faces of each image, as RetinaFace does, free of its faults.

    An anchor learns the face it overlaps most, from IoU `match_iou` on. Each face claims its best
    anchor, from IoU `force_iou` on; of two that claim the same anchor the larger overlap wins.
    Faces that no anchor fits (tiny ones: their log targets would run away), ignored faces and the
    anchors on them are neither learnt nor taken for background. Boxes without area do not exist.

    Args:
        boxes: one float32 [N, 4] xyxy px for each of B images; N may be 0.
        ignore: one bool [N] for each.
        anchors: float32 [A, 4] xyxy px.
    """
    faces, ignored = torch.cat(list(boxes)), torch.cat(list(ignore))
    counts = [len(b) for b in boxes]
    if not len(faces):
        return no_matches(len(counts), anchors)

    overlaps = iou(faces, anchors)  # [F, A], F faces of all images
    best, best_anchor = overlaps.max(1)
    exists = (faces[:, 2:] > faces[:, :2]).all(1)
    learnt = exists & ~ignored & (best >= min(settings.match_iou, settings.force_iou))
    neither = near_faces(faces, exists & ~learnt, counts, anchors, settings.match_iou, overlaps)

    overlaps[~learnt] = -1.0
    claims = (learnt & (best >= settings.force_iou)).nonzero(as_tuple=True)[0]
    overlaps[claims, best_anchor[claims]] += 2.0  # above every IoU, and still in their order
    return best_faces(overlaps, counts, settings.match_iou, neither)


def no_matches(images: int, anchors: Tensor) -> Matches:
    """All background."""
    labels = torch.zeros(images, len(anchors), dtype=torch.int8, device=anchors.device)
    return Matches(labels, labels.long())


def best_faces(merits: Tensor, counts: list[int], least: float, neither: Tensor) -> Matches:
    """Each anchor learns the face of highest merit, if that is at least `least`.

    Args:
        merits: [F, A], of each face of the batch at each anchor.
        counts: faces of each image; their sum is F.
        neither: bool [B, A], of the other anchors those that are not background.
    """
    labels = torch.zeros(neither.shape, dtype=torch.int8, device=merits.device)
    matched = torch.zeros(neither.shape, dtype=torch.int64, device=merits.device)
    start = 0
    for i, count in enumerate(counts):
        if count:
            merit, face = merits[start:start + count].max(0)
            labels[i] = merit >= least
            matched[i] = face + start
        start += count
    labels[neither & (labels == NEGATIVE)] = NEITHER
    return Matches(labels, matched)


def near_faces(faces: Tensor, vague: Tensor, counts: list[int], anchors: Tensor,
               match_iou: float, overlaps: Tensor | None = None) -> Tensor:
    """bool [B, A]: anchors on a face that exists but is not learnt (`vague`, bool [F]).

    Args:
        overlaps: IoU [F, A] of faces and anchors where it is known already.
    """
    hits = torch.zeros(len(counts), len(anchors), dtype=torch.int32, device=anchors.device)
    rows = vague.nonzero(as_tuple=True)[0]
    if len(rows):
        ious = iou(faces[rows], anchors) if overlaps is None else overlaps[rows]
        # At least its best anchors (a tiny face lies in several, with equal IoU) …
        near = (ious >= ious.amax(1, keepdim=True).clamp(max=match_iou)) & (ious > 0)
        # … and those mostly inside it (a region of a crowd): IoU = I / (a + b - I), solved for I.
        own = area(anchors)
        near |= ious * (area(faces[rows])[:, None] + own) / (1 + ious) >= INSIDE * own
        image = torch.arange(len(counts), device=anchors.device).repeat_interleave(
            torch.tensor(counts, device=anchors.device))
        hits.index_add_(0, image[rows], near.int())
    return hits > 0
