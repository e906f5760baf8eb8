"""Network outputs and priors → detections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import nms

from detector.boxes.anchors import Priors
from detector.boxes.coding import decode, decode_landmarks
from detector.config.recipe import Evaluation


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces found in one image, best score first; n may be 0."""

    boxes: Tensor
    """float [n, 4]: x1, y1, x2, y2 in pixels of the network's input, or of what the function that
    returns them says; not clipped to it."""
    scores: Tensor
    """float32 [n] in [0, 1]: the probability of a face."""
    landmarks: Tensor | None
    """float [n, 5, 2] in the same pixels; none where the head has no landmarks."""

    def __len__(self) -> int:
        return len(self.scores)


def postprocess(
    outputs: Mapping[str, Tensor], priors: Priors, settings: Evaluation
) -> list[Detections]:
    """Detections of each image of a batch.

    Scores above `settings.score_threshold`, the best `pre_nms` of them, NMS at `nms_iou`, and the
    best `keep` of what is left (RetinaFace's order).

    Args:
        outputs: class_logits [B, A, 2 or 1], box_deltas [B, A, 4], maybe landmark_deltas
            [B, A, 10] and objectness [B, A, 1].
        priors: of the outputs' design and image size.
    """
    scores = face_scores(outputs)
    boxes, points = outputs["box_deltas"], outputs.get("landmark_deltas")
    references, coding = priors.references, priors.coding

    def one(i: int) -> Detections:
        # Decoded only where chosen: few of the anchors are.
        return select(
            scores[i],
            lambda chosen: decode(boxes[i][chosen].float(), references[chosen], coding),
            None
            if points is None
            else lambda chosen: decode_landmarks(
                points[i][chosen].float(), references[chosen], coding
            ),
            settings,
        )

    return [one(i) for i in range(len(scores))]


def face_scores(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A] in [0, 1]: probability of a face, times that of an object where predicted."""
    logits = outputs["class_logits"].float()
    scores = (logits.sigmoid() if logits.shape[-1] == 1 else logits.softmax(dim=-1))[..., -1]
    if "objectness" in outputs:
        scores = scores * outputs["objectness"].float().sigmoid()[..., 0]
    return scores


def select(
    scores: Tensor,
    boxes_of: Callable[[Tensor], Tensor],
    landmarks_of: Callable[[Tensor], Tensor] | None,
    settings: Evaluation,
) -> Detections:
    """The detections of one image, in the order that `postprocess` tells.

    Args:
        scores: float32 [A].
        boxes_of, landmarks_of: indices [n] of anchors → float32 [n, 4] and [n, 5, 2].
    """
    chosen = (scores > settings.score_threshold).nonzero()[:, 0]
    scores, order = scores[chosen].sort(descending=True, stable=True)
    scores, chosen = scores[: settings.pre_nms], chosen[order[: settings.pre_nms]]
    boxes = boxes_of(chosen)
    kept = nms(boxes, scores, settings.nms_iou)[: settings.keep]
    return Detections(
        boxes[kept], scores[kept], landmarks_of(chosen[kept]) if landmarks_of else None
    )
