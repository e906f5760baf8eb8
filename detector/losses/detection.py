"""The losses of a detector: a dict of terms, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.boxes.anchors import Priors
from detector.boxes.coding import decode, encode, encode_landmarks
from detector.boxes.postprocess import face_scores
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses.atss_assigner import atss
from detector.losses.box_overlap import OVERLAP_LOSSES, paired_iou
from detector.losses.classification import class_loss, cross_entropy, judged
from detector.losses.iou_assigner import NEGATIVE, POSITIVE, Matches, match
from detector.losses.selection import chosen
from detector.losses.simota_assigner import simota


class Counts(NamedTuple):
    """What the terms of a batch are divided by: scalars, which add up over the parts of a batch."""

    judged: Tensor
    """Of the class loss (of objectness where predicted), see `class_losses.judged`."""
    faces: Tensor
    """Positives."""
    weights: Tensor
    """Of the positives in the box loss: their number, with quality focal loss their scores."""
    landmarks: Tensor
    """Positives whose face has all five landmarks known."""


def detection_losses(
    outputs: Mapping[str, Tensor],
    targets: Targets | Sequence[Mapping[str, Tensor]],
    priors: Priors,
    settings: Loss,
    matches: Matches | None = None,
    counts: Counts | None = None,
) -> dict[str, Tensor]:
    """The multi-task loss of a batch, in float32, unweighted.

    Args:
        outputs: `class_logits` [B, A, 2] (background, face) or [B, A, 1], `box_deltas` [B, A, 4]
            and, where the head has them, `landmark_deltas` [B, A, 10], `objectness` [B, A, 1]; of
            any float type.
        targets: the faces; or for each image `boxes` float32 [N, 4] xyxy px, `landmarks` float32
            [N, 5, 2] px (NaN where unknown), `ignore` bool [N]; N may be 0.
        priors: of the outputs' design and image size.
        matches: what `assign` finds, where it is known already.
        counts: of the whole batch where these images are a part of it; the losses of the parts
            then add up to the batch's. None: these images are all.

    Returns:
        Scalars: `class`, see `class_losses`; where the head has objectness, that loss is its
        `objectness`, and `class` the cross entropy of positives against the IoU of their boxes.
        `box`, for each positive, smooth L1 over the four deltas or a loss of overlap, with quality
        focal loss weighted by the predicted scores. `landmark` (where predicted), smooth L1 over
        the ten deltas, for each positive whose face has all five known; exactly 0 where none has.
    """
    targets = Targets.of(targets)
    if matches is None:
        matches = assign(outputs, targets, priors, settings)
    if counts is None:
        counts = count(outputs, targets, matches, settings)
    positive, negative = matches.labels == POSITIVE, matches.labels == NEGATIVE
    learnt = chosen(positive)
    references, deltas = learnt.anchors(priors.references), learnt.of(outputs["box_deltas"]).float()
    faces, deltas = learnt.of(matches.faces), learnt.only(deltas)
    boxes = learnt.only(_rows(targets.boxes, faces), references)
    predicted = decode(deltas, references, priors.coding)
    quality = paired_iou(predicted.detach(), boxes)

    losses = {}
    logits = _face_logits(outputs)
    if "objectness" in outputs:
        terms = cross_entropy(learnt.of(logits), quality)
        losses["class"] = learnt.sum(terms) / counts.faces.clamp(min=1)
        logits = _taught_logits(outputs)
    losses["objectness" if "objectness" in outputs else "class"] = class_loss(
        logits, positive, negative, learnt.spread(quality), settings
    ) / counts.judged.clamp(min=1)

    if settings.box_loss == "smooth_l1":
        wanted = encode(boxes, references, priors.coding)
        terms = F.smooth_l1_loss(deltas, wanted, reduction="none").sum(1)
    else:
        terms = OVERLAP_LOSSES[settings.box_loss](predicted, boxes)
    if settings.class_loss == "quality_focal":  # generalised focal loss (Li et al. 2020)
        terms = learnt.of(logits).detach().sigmoid() * terms
    losses["box"] = learnt.sum(terms) / counts.weights.clamp(min=torch.finfo(terms.dtype).tiny)

    if "landmark_deltas" in outputs:
        points = _rows(targets.landmarks, faces)
        known = _known(points)[:, None]
        wanted = encode_landmarks(points, references, priors.coding).where(known, 0)
        deltas = learnt.of(outputs["landmark_deltas"]).float().where(known, 0)
        terms = F.smooth_l1_loss(deltas, wanted, reduction="none", beta=settings.landmark_beta).sum(
            1
        )
        losses["landmark"] = learnt.sum(terms) / counts.landmarks.clamp(min=1)
    return losses


@torch.no_grad()
def count(
    outputs: Mapping[str, Tensor] | None, targets: Targets, matches: Matches, settings: Loss
) -> Counts:
    """What the losses of these images are divided by.

    Args:
        outputs: as those of `detection_losses`; may be none unless `by_predictions`.
    """
    positive = matches.labels == POSITIVE
    faces = positive.sum()
    weights = (
        (_taught_logits(outputs).sigmoid() * positive).sum()
        if settings.class_loss == "quality_focal"
        else faces
    )
    learnt = chosen(positive)
    known = _known(_rows(targets.landmarks, learnt.of(matches.faces)))
    return Counts(judged(positive, settings), faces, weights, learnt.sum(known.float()))


def _known(points: Tensor) -> Tensor:
    """bool [R]: all five landmarks of [R, 5, 2] are known."""
    return points.isfinite().flatten(1).all(1)


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows]; zeros where there are no values."""
    return values[rows] if len(values) else values.new_zeros(*rows.shape, *values.shape[1:])


def by_predictions(settings: Loss) -> bool:
    """Whether `assign` or `count` ask for what the network predicts, not for the faces alone."""
    return settings.assignment == "simota" or settings.class_loss == "quality_focal"


def assign(
    outputs: Mapping[str, Tensor] | None, targets: Targets, priors: Priors, settings: Loss
) -> Matches:
    """Which anchor learns which face, by the rule that `settings.assignment` names; only simota
    looks at the outputs."""
    if settings.assignment == "atss":
        return atss(targets, priors, settings)
    if settings.assignment == "simota":
        predicted = decode(outputs["box_deltas"].detach().float(), priors.references, priors.coding)
        return simota(targets, face_scores(outputs).detach(), predicted, priors, settings)
    return match(targets, priors.anchors, settings)


def total_loss(losses: Mapping[str, Tensor], settings: Loss) -> Tensor:
    """The weighted sum that is minimised."""
    weights = {
        "class": 1.0,
        "objectness": 1.0,
        "box": settings.box_weight,
        "landmark": settings.landmark_weight,
    }
    return sum(weights[name] * loss for name, loss in losses.items())


def _taught_logits(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A], the log odds that learn positives from negatives."""
    return (
        outputs["objectness"].float()[..., 0]
        if "objectness" in outputs
        else (_face_logits(outputs))
    )


def _face_logits(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A], the log odds of a face against background by the class alone."""
    logits = outputs["class_logits"].float()
    return logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]
