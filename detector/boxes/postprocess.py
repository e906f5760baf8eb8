"""Post-processing: network outputs to detections, by non-maximum suppression (NMS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import nms

from detector.boxes.anchors import Priors
from detector.boxes.coding import decode, decode_landmarks
from detector.boxes.logits import face_scores
from detector.config.recipe import Evaluation


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces detected in one image, highest score first; n may be 0."""

    boxes: Tensor
    """float [n, 4]: x1, y1, x2, y2 in pixels, of the network's input unless the function that
    returns them says otherwise; not clipped."""
    scores: Tensor
    """float32 [n] in [0, 1]: the probability of a face."""
    landmarks: Tensor | None
    """float [n, 5, 2] in the same pixels; None if the head has no landmarks."""

    def __len__(self) -> int:
        return len(self.scores)


def postprocess(
    outputs: Mapping[str, Tensor], priors: Priors, settings: Evaluation
) -> list[Detections]:
    """Detections of each image of a batch.

    Scores above `settings.score_threshold`, the best `pre_nms` of them, non-maximum suppression at
    IoU `nms_iou`, and the best `keep` of the rest (RetinaFace's order).

    Args:
        outputs: class_logits [B, A, 2 or 1], box_deltas [B, A, 4], optionally landmark_deltas
            [B, A, 10] and objectness [B, A, 1].
        priors: of the outputs' design and image size.
    """
    scores = face_scores(outputs)
    boxes, points = outputs["box_deltas"], outputs.get("landmark_deltas")
    references, coding = priors.references, priors.coding

    def of_image(i: int) -> Detections:
        # Only the candidates are decoded: they are few.
        return select(
            scores[i],
            lambda indices: decode(boxes[i][indices].float(), references[indices], coding),
            None
            if points is None
            else lambda indices: decode_landmarks(
                points[i][indices].float(), references[indices], coding
            ),
            settings,
        )

    return [of_image(i) for i in range(len(scores))]


def select(
    scores: Tensor,
    boxes_of: Callable[[Tensor], Tensor],
    landmarks_of: Callable[[Tensor], Tensor] | None,
    settings: Evaluation,
) -> Detections:
    """The detections of one image, by the steps of `postprocess`.

    Args:
        scores: float32 [A].
        boxes_of, landmarks_of: indices [n] of anchors → float32 [n, 4] and [n, 5, 2].
    """
    candidates = (scores > settings.score_threshold).nonzero()[:, 0]
    scores, order = scores[candidates].sort(descending=True, stable=True)
    scores, candidates = scores[: settings.pre_nms], candidates[order[: settings.pre_nms]]
    boxes = boxes_of(candidates)
    selected = nms(boxes, scores, settings.nms_iou)
    finite = boxes[selected].isfinite().all(dim=1)  # a network of wild weights overflows
    selected = selected[finite][: settings.keep]
    return Detections(
        boxes[selected],
        scores[selected],
        landmarks_of(candidates[selected]) if landmarks_of else None,
    )
