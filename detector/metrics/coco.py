"""COCO's average precision and recall, by pycocotools (Lin et al.: Microsoft COCO, ECCV 2014)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np

from detector.data.types import ImageLabel
from detector.metrics.wider_files import image_key

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_FACE = 1  # pycocotools takes an id of 0 for none: all ids start at 1


def coco_ap(
    predictions: Mapping[str, np.ndarray], labels: Sequence[ImageLabel]
) -> dict[str, float | None]:
    """COCO's twelve numbers for the one class face, each in [0, 1].

    AP and AR are means over IoU 0.50, 0.55 … 0.95; small, medium and large part at boxes of 32²
    and 96² px of the original image. At most the best 100 detections of an image take part (1 and
    10 in AR1 and AR10). An ignored face is a crowd, as COCO has it: detections count neither way
    whose own area lies in it by the IoU asked for, however many they are.

    Args:
        predictions: `<event>/<image>` (suffix or not) → float [n, 5]: x, y, w, h, score. Images
            left out have no detections. Whole pixels, as in prediction files, cost AP of small
            faces: give the boxes as they were found.
        labels: the truth of each image.

    Returns:
        Each of `NAMES`; none where there is no such face.
    """
    from pycocotools.cocoeval import COCOeval

    by_key = {image_key(name): rows for name, rows in predictions.items()}
    faces, found = [], []
    for image, label in enumerate(labels, start=1):
        corners = np.asarray(label.boxes, dtype=np.float64).reshape(-1, 4)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        faces += [
            _row(image, box) | {"iscrowd": int(ignored)}
            for box, ignored in zip(boxes, label.ignore)
        ]
        rows = np.asarray(by_key.get(image_key(label.name), ()), dtype=np.float64).reshape(-1, 5)
        found += [_row(image, row[:4]) | {"score": float(row[4])} for row in rows]
    with contextlib.redirect_stdout(io.StringIO()):
        compared = COCOeval(_indexed(faces, len(labels)), _indexed(found, len(labels)), "bbox")
        compared.evaluate()
        compared.accumulate()
        compared.summarize()
    return {
        name: None if value < 0 else float(value)  # it says -1 where there is no face
        for name, value in zip(NAMES, compared.stats)
    }


def _row(image: int, box: np.ndarray) -> dict:
    return {
        "image_id": image,
        "category_id": _FACE,
        "bbox": box.tolist(),
        "area": float(box[2] * box[3]),
    }


def _indexed(rows: list[dict], images: int):
    """pycocotools' form of faces or detections."""
    from pycocotools.coco import COCO

    made = COCO()
    made.dataset = {
        "images": [{"id": image} for image in range(1, images + 1)],
        "categories": [{"id": _FACE}],
        "annotations": [row | {"id": at} for at, row in enumerate(rows, start=1)],
    }
    made.createIndex()
    return made
