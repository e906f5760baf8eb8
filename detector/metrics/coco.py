"""COCO's average precision and recall, by pycocotools (Lin et al.: Microsoft COCO, ECCV 2014)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np

from detector.data.types import ImageLabel, image_key

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_FACE = 1  # pycocotools treats id 0 as none, so all ids start at 1


def coco_ap(
    predictions: Mapping[str, np.ndarray], labels: Sequence[ImageLabel]
) -> dict[str, float | None]:
    """COCO's twelve metrics for the single class face, each in [0, 1].

    AP and AR are means over IoU 0.50, 0.55 … 0.95; small, medium and large are separated at areas
    of 32² and 96² px of the original image. The best 100 detections of an image count (1 and 10 in
    AR1 and AR10). Ignored faces are crowds in COCO's sense: any number of detections that overlap
    one by the required share of their own area are ignored.

    Args:
        predictions: `<event>/<image>` (suffix or not) → float [n, 5]: x, y, w, h, score. Missing
            images have no detections. Boxes should not be rounded to whole pixels, as in prediction
            files, which lowers the AP of small faces.
        labels: the ground truth of each image.

    Returns:
        The value of each of `NAMES`; None if there is no such face.
    """
    from pycocotools.cocoeval import COCOeval

    by_key = {image_key(name): rows for name, rows in predictions.items()}
    faces, detections = [], []
    for image, label in enumerate(labels, start=1):
        corners = np.asarray(label.boxes, dtype=np.float64).reshape(-1, 4)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        faces += [
            _row(image, box) | {"iscrowd": int(ignored)}
            for box, ignored in zip(boxes, label.ignore)
        ]
        rows = np.asarray(by_key.get(image_key(label.name), ()), dtype=np.float64).reshape(-1, 5)
        detections += [_row(image, row[:4]) | {"score": float(row[4])} for row in rows]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _to_coco(faces, len(labels)), _to_coco(detections, len(labels)), "bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: None if value < 0 else float(value)  # -1 means that there is no face
        for name, value in zip(NAMES, evaluation.stats)
    }


def _row(image: int, box: np.ndarray) -> dict:
    return {
        "image_id": image,
        "category_id": _FACE,
        "bbox": box.tolist(),
        "area": float(box[2] * box[3]),
    }


def _to_coco(rows: list[dict], images: int):
    """Faces or detections as pycocotools' COCO object."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(1, images + 1)],
        "categories": [{"id": _FACE}],
        "annotations": [row | {"id": at} for at, row in enumerate(rows, start=1)],
    }
    coco.createIndex()
    return coco
