"""The losses of a detector: assignment, normalizers and the dict of losses in one visit."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.boxes.anchors import Priors
from detector.boxes.coding import decode, encode, encode_landmarks
from detector.boxes.logits import face_logits, foreground_logits
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses.assignment import NEGATIVE, POSITIVE, Matches
from detector.losses.box_losses import paired_iou
from detector.losses.class_losses import count_positives, cross_entropy
from detector.losses.selection import Selection, select
from detector.losses.tables import ASSIGNERS, BOX_LOSSES, CLASS_LOSSES

Outputs = Mapping[str, Tensor]


class Normalizers(NamedTuple):
    """What the losses are divided by: float32 scalars, which add up over the parts of a batch and
    over workers."""

    foreground: Tensor
    """Of the class loss (of objectness where predicted): positives as that loss counts them."""
    positives: Tensor
    box: Tensor
    """Weights of the positives in the box loss: 1 each, or their scores."""
    landmark: Tensor
    """Positives whose face has all five landmarks known."""


class Assignment(NamedTuple):
    matches: Matches
    normalizers: Normalizers


class Positives(NamedTuple):
    """The positive anchors, gathered [R, …] (see `Selection`)."""

    selection: Selection
    faces: Tensor
    """int64 [R]: rows of `Targets`."""
    references: Tensor
    """[R, 4] xyxy px."""
    deltas: Tensor
    """float32 [R, 4], predicted."""
    predicted: Tensor
    """[R, 4] xyxy px, decoded from `deltas`."""
    boxes: Tensor
    """[R, 4] xyxy px, of their faces."""
    quality: Tensor
    """[R] in [0, 1]: IoU of predicted boxes and faces, without gradient."""


@dataclass(frozen=True)
class Criterion:
    """The multi-task loss that `settings` describe (DETR's name for it).

    Never waits for a device, so that a step can be captured as a CUDA graph.
    """

    settings: Loss

    def __call__(
        self,
        outputs: Outputs,
        targets: Targets | Sequence[Mapping[str, Tensor]],
        priors: Priors,
        assignment: Assignment | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch, in float32.

        Args:
            outputs: `class_logits` [B, A, 2] (background, face) or [B, A, 1], `box_deltas`
                [B, A, 4] and, where the head has them, `landmark_deltas` [B, A, 10], `objectness`
                [B, A, 1]; of any float type.
            targets: the faces; or for each image `boxes` float32 [N, 4] xyxy px, `landmarks`
                float32 [N, 5, 2] px (NaN where unknown), `ignore` bool [N]; N may be 0.
            priors: of the outputs' design and image size.
            assignment: as `assign` gives it, with normalizers of the whole batch where these images
                are a part of it: the losses of the parts then add up to the batch's. None means
                that these images are the whole batch.

        Returns:
            Scalars, unweighted but for `total`. `class`: see `class_losses`; where the head has
            objectness, that loss is `objectness`, and `class` the cross entropy of positives
            against the IoU of their boxes. `box`: over positives, weighted by their scores with
            quality focal loss. `landmark`, where predicted: smooth L1 over the ten deltas of
            positives whose face has all five known; exactly 0 where none has. `total`: the weighted
            sum, which is minimised.
        """
        targets = Targets.of(targets)
        if assignment is None:
            assignment = self.assign(outputs, targets, priors)
        matches, normalizers = assignment
        positives = gather_positives(outputs, targets, priors, matches)
        logits = foreground_logits(outputs)
        losses = self._class_losses(outputs, logits, matches, positives, normalizers)
        losses["box"] = self._box_loss(logits, priors, positives, normalizers)
        if "landmark_deltas" in outputs:
            losses["landmark"] = self._landmark_loss(
                outputs, targets, priors, positives, normalizers
            )
        weights = {"box": self.settings.box_weight, "landmark": self.settings.landmark_weight}
        losses["total"] = reduce(
            operator.add, [weights.get(name, 1.0) * loss for name, loss in losses.items()]
        )
        return losses

    @property
    def needs_outputs(self) -> bool:
        """Whether `assign` needs what the network predicts, not the faces alone."""
        return (
            ASSIGNERS[self.settings.assignment].needs_outputs
            or CLASS_LOSSES[self.settings.class_loss].weights_boxes
        )

    @torch.no_grad()
    def assign(self, outputs: Outputs | None, targets: Targets, priors: Priors) -> Assignment:
        """Which anchor learns which face, and what the losses of these images are divided by.

        Args:
            outputs: may be None unless `needs_outputs`.
        """
        class_loss = CLASS_LOSSES[self.settings.class_loss]
        matches = ASSIGNERS[self.settings.assignment].assign(
            targets, priors, self.settings, outputs
        )
        positive = matches.labels == POSITIVE
        count = box = positive.sum()
        if class_loss.weights_boxes:
            assert outputs is not None
            box = (foreground_logits(outputs).sigmoid() * positive).sum()
        selection = select(positive)
        known = all_known(_take(targets.landmarks, selection.gather(matches.faces)))
        landmark = selection.sum(known.float())
        normalizers = count_positives(positive, self.settings), count, box, landmark
        return Assignment(matches, Normalizers(*(value.float() for value in normalizers)))

    def _class_losses(
        self,
        outputs: Outputs,
        logits: Tensor,
        matches: Matches,
        positives: Positives,
        normalizers: Normalizers,
    ) -> dict[str, Tensor]:
        losses = {}
        selection, quality = positives.selection, positives.quality
        if "objectness" in outputs:
            terms = cross_entropy(selection.gather(face_logits(outputs)), quality)
            losses["class"] = selection.sum(terms) / normalizers.positives.clamp(min=1)
        loss = CLASS_LOSSES[self.settings.class_loss].loss(
            logits,
            selection.mask,
            matches.labels == NEGATIVE,
            selection.scatter(quality),
            self.settings,
        )
        name = "objectness" if "objectness" in outputs else "class"
        losses[name] = loss / normalizers.foreground.clamp(min=1)
        return losses

    def _box_loss(
        self, logits: Tensor, priors: Priors, positives: Positives, normalizers: Normalizers
    ) -> Tensor:
        box_loss = BOX_LOSSES[self.settings.box_loss]
        if box_loss.of_deltas:
            target = encode(positives.boxes, positives.references, priors.coding)
            terms = box_loss.loss(positives.deltas, target)
        else:
            terms = box_loss.loss(positives.predicted, positives.boxes)
        if CLASS_LOSSES[self.settings.class_loss].weights_boxes:
            terms = positives.selection.gather(logits).detach().sigmoid() * terms
        tiny = torch.finfo(terms.dtype).tiny
        return positives.selection.sum(terms) / normalizers.box.clamp(min=tiny)

    def _landmark_loss(
        self,
        outputs: Outputs,
        targets: Targets,
        priors: Priors,
        positives: Positives,
        normalizers: Normalizers,
    ) -> Tensor:
        selection = positives.selection
        points = _take(targets.landmarks, positives.faces)
        known = all_known(points)[:, None]
        target = encode_landmarks(points, positives.references, priors.coding).where(known, 0)
        deltas = selection.gather(outputs["landmark_deltas"]).float().where(known, 0)
        terms = F.smooth_l1_loss(
            deltas, target, reduction="none", beta=self.settings.landmark_beta
        ).sum(1)
        return selection.sum(terms) / normalizers.landmark.clamp(min=1)


def gather_positives(
    outputs: Outputs, targets: Targets, priors: Priors, matches: Matches
) -> Positives:
    """The positive anchors of a batch, with what they predict and what they should."""
    selection = select(matches.labels == POSITIVE)
    references = selection.gather_anchors(priors.references)
    deltas = selection.gather(outputs["box_deltas"]).float()
    faces, deltas = selection.gather(matches.faces), selection.masked(deltas)
    boxes = selection.masked(_take(targets.boxes, faces), references)
    predicted = decode(deltas, references, priors.coding)
    quality = paired_iou(predicted.detach(), boxes)
    return Positives(selection, faces, references, deltas, predicted, boxes, quality)


def all_known(landmarks: Tensor) -> Tensor:
    """bool [R]: all five landmarks of [R, 5, 2] are known."""
    return landmarks.isfinite().flatten(1).all(1)


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows]; zeros where there are no values."""
    return values[rows] if len(values) else values.new_zeros(*rows.shape, *values.shape[1:])
