"""Post-processing (NMS) in closed form: decoding, order, limits, batches."""

import math
from dataclasses import replace

import pytest
import torch

from detector.boxes.anchors import Priors
from detector.boxes.coding import encode, encode_landmarks
from detector.boxes.postprocess import postprocess
from detector.config.recipe import Evaluation

SETTINGS = Evaluation()


def detections(outputs, anchors, settings):
    return postprocess(outputs, Priors(anchors, anchors, anchors, (len(anchors),)), settings)


def outputs_for(boxes, scores, anchors, landmarks=None):
    """Network outputs for these boxes [A, 4] and scores [A], as a batch of one."""
    scores = torch.as_tensor(scores, dtype=torch.float32)
    logits = torch.stack([torch.zeros_like(scores), (scores / (1 - scores)).log()], dim=-1)
    outputs = {"class_logits": logits[None], "box_deltas": encode(boxes, anchors)[None]}
    if landmarks is not None:
        outputs["landmark_deltas"] = encode_landmarks(landmarks, anchors)[None]
    return outputs


def row_of_boxes(n, gap=20.0, side=10.0):
    left = torch.arange(n) * gap
    return torch.stack([left, torch.zeros(n), left + side, torch.full((n,), side)], dim=1)


def test_one_anchor_in_closed_form():
    anchors = torch.tensor([[0.0, 10.0, 20.0, 50.0]])  # centre (10, 30), 20 wide, 40 high
    outputs = {
        "class_logits": torch.tensor([[[1.0, 1.0 + math.log(3)]]]),  # 3 : 1 for a face
        "box_deltas": torch.tensor([[[5.0, -2.5, 5 * math.log(2), 5 * math.log(0.5)]]]),
        "landmark_deltas": torch.tensor([[[0.0, 0, 1, 1, 0, 10, -5, 0, 0, -5]]]),
    }
    (result,) = detections(outputs, anchors, SETTINGS)
    # centre (10 + 0.1·5·20, 30 − 0.1·2.5·40) = (20, 20), 40 wide, 20 high
    torch.testing.assert_close(result.boxes, torch.tensor([[0.0, 10.0, 40.0, 30.0]]))
    torch.testing.assert_close(result.scores, torch.tensor([0.75]))
    torch.testing.assert_close(
        result.landmarks, torch.tensor([[[10.0, 30], [12, 34], [10, 70], [0, 30], [10, 10]]])
    )


def test_boxes_that_overflow_are_left_out():
    """They can neither be drawn nor written to prediction files."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    outputs = outputs_for(boxes, [0.9, 0.8, 0.7], boxes)
    outputs["box_deltas"][0, 0, 0] = float("inf")
    outputs["box_deltas"][0, 1, 2] = float("nan")
    (result,) = detections(outputs, boxes, SETTINGS)
    torch.testing.assert_close(result.boxes, boxes[2:])
    torch.testing.assert_close(result.scores, torch.tensor([0.7]))


def test_nms_keeps_the_best_and_orders_by_score():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10], [53, 0, 63, 10]])
    (result,) = detections(outputs_for(boxes, [0.5, 0.6, 0.3, 0.9], boxes), boxes, SETTINGS)
    # IoU of the first two is 9/11, of the last two 7/13: over 0.4, both.
    torch.testing.assert_close(result.boxes, boxes[[3, 1]])
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.6]))
    assert result.landmarks is None
    (result,) = detections(
        outputs_for(boxes, [0.5, 0.6, 0.3, 0.9], boxes), boxes, replace(SETTINGS, nms_iou=0.6)
    )
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.6, 0.3]))


def test_limits_before_and_after_nms():
    boxes = row_of_boxes(6)
    boxes[1] = boxes[0]
    outputs = outputs_for(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], boxes)

    def scores(**changes):
        (result,) = detections(outputs, boxes, replace(SETTINGS, **changes))
        return result.scores.tolist()

    assert scores() == pytest.approx([0.9, 0.7, 0.6, 0.5, 0.4])
    assert scores(keep=2) == pytest.approx([0.9, 0.7])
    assert scores(pre_nms=3) == pytest.approx([0.9, 0.7])  # one of the three falls to NMS
    assert scores(score_threshold=0.55) == pytest.approx([0.9, 0.7, 0.6])


def test_scores_must_exceed_the_threshold():
    boxes = row_of_boxes(1)
    outputs = {"class_logits": torch.zeros(1, 1, 2), "box_deltas": torch.zeros(1, 1, 4)}
    assert len(detections(outputs, boxes, replace(SETTINGS, score_threshold=0.5))[0]) == 0
    assert len(detections(outputs, boxes, replace(SETTINGS, score_threshold=0.49))[0]) == 1


def test_no_detections_have_the_same_shapes():
    boxes = row_of_boxes(3)
    outputs = outputs_for(boxes, [0.01, 0.01, 0.01], boxes, torch.zeros(3, 5, 2))
    (result,) = detections(outputs, boxes, SETTINGS)
    assert result.boxes.shape == (0, 4)
    assert result.scores.shape == (0,)
    assert result.landmarks.shape == (0, 5, 2)


def test_equal_scores_keep_the_order_of_the_anchors():
    boxes = row_of_boxes(50)
    (result,) = detections(outputs_for(boxes, [0.5] * 50, boxes), boxes, replace(SETTINGS, keep=9))
    torch.testing.assert_close(result.boxes, boxes[:9])


def test_a_batch_equals_its_images_one_by_one():
    generator = torch.Generator().manual_seed(0)
    anchors = row_of_boxes(200, gap=4.0)
    outputs = {
        "class_logits": torch.randn(3, 200, 2, generator=generator),
        "box_deltas": torch.randn(3, 200, 4, generator=generator),
        "landmark_deltas": torch.randn(3, 200, 10, generator=generator),
    }
    together = detections(outputs, anchors, SETTINGS)
    for i, result in enumerate(together):
        (alone,) = detections({k: v[i : i + 1] for k, v in outputs.items()}, anchors, SETTINGS)
        assert len(result) > 5
        for field in ("boxes", "scores", "landmarks"):
            assert torch.equal(getattr(result, field), getattr(alone, field))


def test_half_precision_outputs_are_decoded_in_float():
    boxes = row_of_boxes(4)
    outputs = {k: v.bfloat16() for k, v in outputs_for(boxes, [0.9, 0.8, 0.7, 0.6], boxes).items()}
    (result,) = detections(outputs, boxes, SETTINGS)
    assert result.boxes.dtype == result.scores.dtype == torch.float32
    torch.testing.assert_close(result.boxes, boxes)


@pytest.mark.parametrize("coding", ["anchor", "distance", "point"])
def test_each_coding_is_undone(coding):
    boxes = row_of_boxes(5)
    references = boxes + torch.tensor([3.0, -2.0, 9.0, 1.0])
    points = boxes[:, None, :2] + torch.arange(10.0).view(5, 2)
    outputs = {
        "class_logits": torch.linspace(3, 2, 5).view(1, 5, 1),
        "box_deltas": encode(boxes, references, coding)[None],
        "landmark_deltas": encode_landmarks(points, references, coding)[None],
    }
    (result,) = postprocess(outputs, Priors(boxes, references, boxes, (5,), coding), SETTINGS)
    torch.testing.assert_close(result.boxes, boxes)
    torch.testing.assert_close(result.landmarks, points)
    torch.testing.assert_close(result.scores, torch.linspace(3, 2, 5).sigmoid())


def test_objectness_multiplies_the_score():
    boxes = row_of_boxes(1)
    outputs = {
        "class_logits": torch.tensor([[[math.log(3)]]]),
        "objectness": torch.tensor([[[math.log(4)]]]),
        "box_deltas": torch.zeros(1, 1, 4),
    }
    (result,) = detections(outputs, boxes, SETTINGS)
    torch.testing.assert_close(result.scores, torch.tensor([0.75 * 0.8]))
