"""COCO's numbers: closed forms, a second implementation, ignored faces, nothing at all."""

import numpy as np
import pytest

from detector.data.types import ImageLabel
from detector.metrics.coco import NAMES, coco_ap


def label(boxes, ignore=None, name="a/x.jpg"):
    """The truth of one image; boxes are x, y, w, h."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return ImageLabel(
        name,
        (1000, 1000),
        corners,
        np.full((len(boxes), 5, 2), np.nan, np.float32),
        np.array([False] * len(boxes) if ignore is None else ignore),
    )


def test_one_face_found_at_a_known_iou():
    # 40 × 29 of a face of 40 × 40: IoU 0.725, above 0.50, 0.55, 0.60, 0.65 and 0.70.
    found = coco_ap({"a/x.jpg": np.array([[10, 10, 40, 29, 0.7]])}, [label([[10, 10, 40, 40]])])
    assert found == pytest.approx(
        {
            "AP": 0.5,
            "AP50": 1,
            "AP75": 0,
            "APs": None,
            "APm": 0.5,
            "APl": None,
            "AR1": 0.5,
            "AR10": 0.5,
            "AR100": 0.5,
            "ARs": None,
            "ARm": 0.5,
            "ARl": None,
        }
    )


def test_a_better_false_positive_halves_precision():
    found = coco_ap(
        {"a/x": np.array([[500, 500, 40, 40, 0.9], [10, 10, 40, 40, 0.7]])},
        [label([[10, 10, 40, 40]])],
    )  # a name without suffix is the same image
    assert (found["AP"], found["AR100"], found["AR1"]) == pytest.approx((0.5, 1, 0))


def test_faces_by_size():
    truth = label([[0, 0, 30, 30], [100, 0, 90, 90], [300, 0, 200, 200]])
    found = coco_ap({"a/x.jpg": np.array([[0, 0, 30, 30, 0.9], [300, 0, 200, 200, 0.8]])}, [truth])
    assert [found[k] for k in ("APs", "APm", "APl", "ARs", "ARm", "ARl")] == pytest.approx(
        [1, 0, 1, 1, 0, 1]
    )


def test_detections_in_an_ignored_face_count_neither_way():
    truth = label([[10, 10, 40, 40], [200, 200, 300, 300]], [False, True])
    rows = np.array([[210, 210, 40, 40, 0.99], [300, 300, 30, 30, 0.98], [10, 10, 40, 40, 0.5]])
    assert coco_ap({"a/x.jpg": rows}, [truth])["AP"] == pytest.approx(1)
    assert coco_ap({"a/x.jpg": rows}, [label([[10, 10, 40, 40]])])["AP"] == pytest.approx(1 / 3)
    only_ignored = label([[1, 1, 9, 9]], [True])
    assert coco_ap({"a/x.jpg": rows}, [only_ignored]) == dict.fromkeys(NAMES)


def test_the_best_hundred_of_an_image():
    rows = np.array([[10 * i, 0, 8, 8, 1 - i / 200] for i in range(101)], float)
    assert coco_ap({"a/x.jpg": rows}, [label(rows[:, :4])])["AR100"] == pytest.approx(100 / 101)


def test_nothing_found_and_nothing_to_find():
    assert coco_ap({}, [label([[10, 10, 40, 40]])])["AP"] == 0
    assert coco_ap({}, []) == coco_ap({}, [label([])]) == dict.fromkeys(NAMES)


# -- a second implementation ------------------------------------------------------------------


def area_under_101_points(predictions, labels, threshold):
    """AP at one IoU threshold, face by face, as COCO's paper has it."""
    rows = sorted(
        (
            (score, name, box)
            for name, found in predictions.items()
            for *box, score in found.tolist()
        ),
        key=lambda row: -row[0],
    )
    truth = {entry.name: entry for entry in labels}
    taken, hits = set(), []
    for _, name, (x, y, w, h) in rows:
        best, best_iou = None, threshold
        for at, (x1, y1, x2, y2) in enumerate(truth[name].boxes.astype(float)):
            wide, high = min(x2, x + w) - max(x1, x), min(y2, y + h) - max(y1, y)
            meet = max(wide, 0) * max(high, 0)
            iou = meet / (w * h + (x2 - x1) * (y2 - y1) - meet)
            if iou >= best_iou and (name, at) not in taken:
                best, best_iou = (name, at), iou
        taken.add(best)
        hits.append(best is not None)
    recall = np.cumsum(hits) / sum(len(entry.boxes) for entry in labels)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return np.mean(
        [max(precision[recall >= point - 1e-12], default=0) for point in np.linspace(0, 1, 101)]
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_a_second_implementation(seed):
    rng = np.random.default_rng(seed)
    predictions, labels = {}, []
    for image in range(4):
        boxes = np.column_stack([rng.integers(0, 300, (6, 2)), rng.integers(10, 120, (6, 2))])
        near = boxes[:5] + rng.normal(0, 5, (5, 4))
        far = np.column_stack([rng.uniform(0, 300, (4, 2)), rng.uniform(10, 90, (4, 2))])
        rows = np.concatenate([near, far])
        labels.append(label(boxes, name=f"a/{image}.jpg"))
        predictions[f"a/{image}.jpg"] = np.column_stack([rows, rng.permutation(9) + rng.random(9)])
    found = coco_ap(predictions, labels)
    by_threshold = [
        area_under_101_points(predictions, labels, t) for t in np.linspace(0.5, 0.95, 10)
    ]
    assert 0.05 < found["AP"] < 0.9
    assert found["AP"] == pytest.approx(np.mean(by_threshold), abs=1e-9)
    assert (found["AP50"], found["AP75"]) == pytest.approx((by_threshold[0], by_threshold[5]))
