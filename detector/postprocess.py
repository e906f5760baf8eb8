"""Network outputs and priors → detections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import nms

from detector.anchors import Priors
from detector.boxes import decode, decode_landmarks
from detector.recipe import Evaluation


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces found in one image, best score first; n may be 0."""

    boxes: Tensor
    """float32 [n, 4]: x1, y1, x2, y2 in pixels of the network's input; not clipped to it."""
    scores: Tensor
    """float32 [n] in [0, 1]: the probability of a face."""
    landmarks: Tensor | None
    """float32 [n, 5, 2] in the same pixels; none where the head has no landmarks."""

    def __len__(self) -> int:
        return len(self.scores)


def postprocess(outputs: Mapping[str, Tensor], priors: Priors,
                settings: Evaluation) -> list[Detections]:
    """Detections of each image of a batch.

    Scores above `settings.score_threshold`, the best `pre_nms` of them, NMS at `nms_iou`, and the
    best `keep` of what is left (RetinaFace's order).

    Args:
        outputs: class_logits [B, A, 2 or 1], box_deltas [B, A, 4], maybe landmark_deltas
            [B, A, 10] and objectness [B, A, 1].
        priors: of the outputs' design and image size.
    """
    scores = face_scores(outputs)
    landmark_deltas = outputs.get("landmark_deltas")
    return [_one_image(scores[i], outputs["box_deltas"][i],
                       None if landmark_deltas is None else landmark_deltas[i], priors, settings)
            for i in range(len(scores))]


def face_scores(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A] in [0, 1]: probability of a face, times that of an object where predicted."""
    logits = outputs["class_logits"].float()
    scores = (logits.sigmoid() if logits.shape[-1] == 1 else logits.softmax(dim=-1))[..., -1]
    if "objectness" in outputs:
        scores = scores * outputs["objectness"].float().sigmoid()[..., 0]
    return scores


def _one_image(scores: Tensor, box_deltas: Tensor, landmark_deltas: Tensor | None,
               priors: Priors, settings: Evaluation) -> Detections:
    chosen = (scores > settings.score_threshold).nonzero()[:, 0]
    scores, order = scores[chosen].sort(descending=True, stable=True)
    scores, chosen = scores[:settings.pre_nms], chosen[order[:settings.pre_nms]]
    # Decoded only now: few of the anchors get here.
    boxes = decode(box_deltas[chosen].float(), priors.references[chosen], priors.coding)
    kept = nms(boxes, scores, settings.nms_iou)[:settings.keep]
    landmarks = None
    if landmark_deltas is not None:
        chosen = chosen[kept]
        landmarks = decode_landmarks(landmark_deltas[chosen].float(), priors.references[chosen],
                                     priors.coding)
    return Detections(boxes[kept], scores[kept], landmarks)
