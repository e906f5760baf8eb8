"""The losses of a detector: a dict of terms, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.anchors import Priors
from detector.atss import atss
from detector.box_losses import OVERLAP_LOSSES, paired_iou
from detector.boxes import decode, encode, encode_landmarks
from detector.class_losses import class_loss, cross_entropy
from detector.matching import NEGATIVE, POSITIVE, Matches, match
from detector.postprocess import face_scores
from detector.recipe import Loss
from detector.simota import simota


def detection_losses(outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]],
                     priors: Priors, settings: Loss) -> dict[str, Tensor]:
    """The multi-task loss of a batch, in float32, unweighted.

    Args:
        outputs: `class_logits` [B, A, 2] (background, face) or [B, A, 1], `box_deltas` [B, A, 4]
            and, where the head has them, `landmark_deltas` [B, A, 10], `objectness` [B, A, 1]; of
            any float type.
        targets: for each image `boxes` float32 [N, 4] xyxy px, `landmarks` float32 [N, 5, 2] px
            (NaN where unknown), `ignore` bool [N]; N may be 0.
        priors: of the outputs' design and image size.

    Returns:
        Scalars: `class`, see `class_losses`; where the head has objectness, that loss is its
        `objectness`, and `class` the cross entropy of positives against the IoU of their boxes.
        `box`, for each positive, smooth L1 over the four deltas or a loss of overlap, with quality
        focal loss weighted by the predicted scores. `landmark` (where predicted), smooth L1 over
        the ten deltas, for each positive whose face has all five known; exactly 0 where none has.
    """
    labels, faces = assign(outputs, targets, priors, settings)
    positive, negative = labels == POSITIVE, labels == NEGATIVE
    image, anchor = positive.nonzero(as_tuple=True)
    face, references = faces[image, anchor], priors.references[anchor]
    boxes = torch.cat([t["boxes"] for t in targets])[face]
    deltas = outputs["box_deltas"][image, anchor].float()
    predicted = decode(deltas, references, priors.coding)
    quality = paired_iou(predicted.detach(), boxes)

    losses = {}
    logits = _face_logits(outputs)
    if "objectness" in outputs:
        count = max(len(face), 1)
        losses["class"] = cross_entropy(logits[image, anchor], quality).sum() / count
        logits = outputs["objectness"].float()[..., 0]
        losses["objectness"] = class_loss(logits, positive, negative, quality, settings)
    else:
        losses["class"] = class_loss(logits, positive, negative, quality, settings)

    if settings.box_loss == "smooth_l1":
        wanted = encode(boxes, references, priors.coding)
        terms = F.smooth_l1_loss(deltas, wanted, reduction="none").sum(1)
    else:
        terms = OVERLAP_LOSSES[settings.box_loss](predicted, boxes)
    weights = torch.ones_like(terms)
    if settings.class_loss == "quality_focal":  # generalised focal loss (Li et al. 2020)
        weights = logits.detach().sigmoid()[image, anchor]
    losses["box"] = (weights * terms).sum() / weights.sum().clamp(min=torch.finfo(terms.dtype).tiny)

    if "landmark_deltas" in outputs:
        points = torch.cat([t["landmarks"] for t in targets])[face]
        known = points.isfinite().flatten(1).all(1)
        deltas = outputs["landmark_deltas"][image[known], anchor[known]].float()
        wanted = encode_landmarks(points[known], references[known], priors.coding)
        losses["landmark"] = F.smooth_l1_loss(deltas, wanted, reduction="sum",
                                              beta=settings.landmark_beta) / max(len(deltas), 1)
    return losses


def assign(outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]],
           priors: Priors, settings: Loss) -> Matches:
    """Which anchor learns which face, by the rule that `settings.assignment` names."""
    boxes, ignore = [t["boxes"] for t in targets], [t["ignore"] for t in targets]
    if settings.assignment == "atss":
        return atss(boxes, ignore, priors, settings)
    if settings.assignment == "simota":
        predicted = decode(outputs["box_deltas"].detach().float(), priors.references, priors.coding)
        return simota(boxes, ignore, face_scores(outputs).detach(), predicted, priors, settings)
    return match(boxes, ignore, priors.anchors, settings)


def total_loss(losses: Mapping[str, Tensor], settings: Loss) -> Tensor:
    """The weighted sum that is minimised."""
    weights = {"class": 1.0, "objectness": 1.0, "box": settings.box_weight,
               "landmark": settings.landmark_weight}
    return sum(weights[name] * loss for name, loss in losses.items())


def _face_logits(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A], the log odds of a face against background by the class alone."""
    logits = outputs["class_logits"].float()
    return logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]
