"""The losses of an anchor-based detector: a dict of terms, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.boxes import encode, encode_landmarks
from detector.matching import NEGATIVE, POSITIVE, match
from detector.recipe import Loss


def detection_losses(outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]],
                     anchors: Tensor, settings: Loss) -> dict[str, Tensor]:
    """RetinaFace's multi-task loss for a batch, in float32, unweighted.

    Args:
        outputs: `class_logits` [B, A, 2] (background, face), `box_deltas` [B, A, 4] and, where the
            head has them, `landmark_deltas` [B, A, 10]; of any float type.
        targets: for each image `boxes` float32 [N, 4] xyxy px, `landmarks` float32 [N, 5, 2] px
            (NaN where unknown), `ignore` bool [N]; N may be 0.
        anchors: float32 [A, 4] xyxy px.

    Returns:
        Scalars: `class`, cross entropy over positives and the hardest negatives, of which each
        image gives `negatives` for each positive, and as many as for one where it has none; the sum
        is divided by the positives counted so. `box`, smooth L1 over the four deltas, for each
        positive. `landmark` (where predicted), smooth L1 over the ten deltas, for each positive
        whose face has all five known; exactly 0 where no face has.
    """
    labels, faces = match([t["boxes"] for t in targets], [t["ignore"] for t in targets],
                          anchors, settings)
    positive = labels == POSITIVE
    logits = outputs["class_logits"].float()
    mined = _hardest(logits.detach(), labels == NEGATIVE, positive, settings.negatives)
    learnt = positive | mined
    counted = positive.sum(1).clamp(min=1).sum()
    losses = {"class": F.cross_entropy(logits[learnt], positive[learnt].long(),
                                       reduction="sum") / counted}

    image, anchor = positive.nonzero(as_tuple=True)
    face, anchor_boxes = faces[image, anchor], anchors[anchor]
    boxes = torch.cat([t["boxes"] for t in targets])[face]
    deltas = outputs["box_deltas"][image, anchor].float()
    losses["box"] = F.smooth_l1_loss(deltas, encode(boxes, anchor_boxes),
                                     reduction="sum") / max(len(face), 1)

    if "landmark_deltas" in outputs:
        points = torch.cat([t["landmarks"] for t in targets])[face]
        known = points.isfinite().flatten(1).all(1)
        deltas = outputs["landmark_deltas"][image[known], anchor[known]].float()
        wanted = encode_landmarks(points[known], anchor_boxes[known]).reshape(deltas.shape)
        losses["landmark"] = F.smooth_l1_loss(deltas, wanted,
                                              reduction="sum") / max(len(deltas), 1)
    return losses


def total_loss(losses: Mapping[str, Tensor], settings: Loss) -> Tensor:
    """The weighted sum that is minimised."""
    weights = {"class": 1.0, "box": settings.box_weight, "landmark": settings.landmark_weight}
    return sum(weights[name] * loss for name, loss in losses.items())


def _hardest(logits: Tensor, negative: Tensor, positive: Tensor, ratio: float) -> Tensor:
    """bool [B, A]: for each image the `ratio` × positives negatives most like a face."""
    wanted = (ratio * positive.sum(1).clamp(min=1)).long()
    wanted = torch.minimum(wanted, negative.sum(1))
    most = int(wanted.max())
    likeness = (logits[..., 1] - logits[..., 0]).masked_fill(~negative, -torch.inf)
    _, order = likeness.topk(most, dim=1)
    taken = torch.arange(most, device=logits.device) < wanted[:, None]
    return torch.zeros_like(negative).scatter_(1, order, taken)
