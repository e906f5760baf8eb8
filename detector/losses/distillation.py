"""What a student learns from a teacher's predictions on the same image (distillation).

After Yang et al. 2023, "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
Detection": scores are compared as probabilities of a face, one by one, and boxes by their overlap.
Both mean the same in every head, so teacher and student may differ in anchors, coding and score;
only strides must agree, and levels that one of them lacks are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from detector.base.errors import UserError
from detector.boxes.anchors import Priors
from detector.boxes.coding import decode
from detector.boxes.logits import face_scores, score_logits
from detector.config.detector import Detector
from detector.config.recipe import Distillation
from detector.losses.box_losses import giou, paired_iou
from detector.losses.class_losses import cross_entropy
from detector.losses.criterion import Outputs
from detector.losses.selection import select

MIN_SCORE = 0.05
"""Score of the teacher from which on its box is learned."""


class SoftTargets(NamedTuple):
    """P predictions of the teacher for each image, and the student's anchors that learn them."""

    scores: Tensor
    """float32 [B, P] in [0, 1]."""
    boxes: Tensor
    """float32 [B, P, 4] xyxy px."""
    anchors: Tensor
    """int64 [B, P], each once per image."""

    @property
    def normalizer(self) -> Tensor:
        """What the losses are divided by, a scalar: the sum of the scores whose boxes are learned.
        It adds up over the parts of a batch and over workers."""
        return torch.where(self.scores >= MIN_SCORE, self.scores, 0).sum()


@dataclass(frozen=True)
class DistillationLoss:
    """The losses of a student against a teacher.

    Never waits for a device, so that a step can be captured as a CUDA graph.

    Raises:
        UserError: the designs have no stride in common.
    """

    settings: Distillation
    student: Detector
    teacher: Detector

    def __post_init__(self):
        if not self.levels:
            ours, theirs = (
                ", ".join(str(2**level) for level in design.neck.levels)
                for design in (self.student, self.teacher)
            )
            raise UserError(
                f"the teacher predicts at strides {theirs}, the design to train at {ours}; "
                "choose a teacher that has one of these, too"
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels that both have."""
        theirs = self.teacher.neck.levels
        return tuple(level for level in self.student.neck.levels if level in theirs)

    @torch.no_grad()
    def targets(self, outputs: Outputs, teacher: Priors, student: Priors) -> SoftTargets:
        """What the student should predict.

        Where both have anchors of the same shapes, each learns from its counterpart. Otherwise, in
        each cell, the student's anchor whose shape is most like the teacher's box of highest score
        learns that one.

        Args:
            outputs: the teacher's.
            teacher, student: their priors for this image size.
        """
        scores = face_scores(outputs)
        boxes = decode(outputs["box_deltas"].float(), teacher.references, teacher.coding)
        levels = [self._level(level, scores, boxes, teacher, student) for level in self.levels]
        return SoftTargets(*(torch.cat(tensors, dim=1) for tensors in zip(*levels)))

    def _level(
        self, level: int, scores: Tensor, boxes: Tensor, teacher: Priors, student: Priors
    ) -> SoftTargets:
        theirs, their_shapes = _of_level(self.teacher, teacher, level)
        ours, our_shapes = _of_level(self.student, student, level)
        scores, boxes = scores[:, theirs], boxes[:, theirs]
        anchors = torch.arange(ours.start, ours.stop, device=scores.device)
        if our_shapes == their_shapes:
            return SoftTargets(scores, boxes, anchors.expand(len(scores), -1))
        scores, best = scores.unflatten(1, (-1, len(their_shapes))).max(2)  # [B, cells]
        boxes = boxes.unflatten(1, (-1, len(their_shapes)))
        boxes = boxes.gather(2, best[:, :, None, None].expand(-1, -1, 1, 4))  # [B, cells, 1, 4]
        a_cell = student.anchors[ours][: len(our_shapes)]
        fitting = paired_iou(_at_origin(a_cell), _at_origin(boxes)).argmax(2)
        return SoftTargets(scores, boxes[:, :, 0], anchors[:: len(our_shapes)] + fitting)

    def __call__(
        self, outputs: Outputs, priors: Priors, targets: SoftTargets, normalizer: Tensor
    ) -> dict[str, Tensor]:
        """The losses of a batch, or of a part of it, in float32.

        Args:
            outputs: the student's.
            priors: of the student, for this image size.
            normalizer: `targets.normalizer`, added up over the whole batch.

        Returns:
            Scalars, unweighted but for `total`. `teacher_score`: binary cross entropy against the
            teacher's scores, each weighted by how far it is off, so that it is 0 where both agree;
            over all targets. `teacher_box`: 1 - GIoU with the teacher's boxes, weighted by its
            scores, from MIN_SCORE on. `total`: the weighted sum.
        """
        scores, boxes, anchors = targets
        logits = score_logits(outputs).gather(1, anchors)
        errors = (logits.detach().sigmoid() - scores).abs()
        score = (errors * cross_entropy(logits, scores)).sum()
        selection = select(scores >= MIN_SCORE)
        deltas = outputs["box_deltas"].gather(1, anchors[:, :, None].expand(-1, -1, 4))
        predicted = decode(
            selection.masked(selection.gather(deltas).float()),
            selection.gather(priors.references[anchors]),
            priors.coding,
        )
        box = selection.sum(giou(predicted, selection.gather(boxes)) * selection.gather(scores))
        divisor = normalizer.clamp(min=1)
        losses = {"teacher_score": score / divisor, "teacher_box": box / divisor}
        losses["total"] = (
            self.settings.score_weight * losses["teacher_score"]
            + self.settings.box_weight * losses["teacher_box"]
        )
        return losses


def _of_level(design: Detector, priors: Priors, level: int) -> tuple[slice, tuple]:
    """Where the anchors of a level are among all, and the shapes of those of a cell."""
    index = design.neck.levels.index(level)
    start = sum(priors.counts[:index])
    return slice(start, start + priors.counts[index]), design.anchor_shapes()[index]


def _at_origin(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] moved to where only their shapes differ."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return torch.cat((torch.zeros_like(sides), sides), dim=-1)
