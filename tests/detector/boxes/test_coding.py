"""Box coding and IoU: round trips, closed forms, a second implementation."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.testing import assert_close

from detector.boxes import coding as boxes

coordinate = st.floats(-2000, 2000, width=32)
side = st.floats(0.5, 3000, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
point = st.tuples(coordinate, coordinate)
coding = st.sampled_from(["anchor", "distance", "point"])


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(box, box), min_size=1, max_size=5), coding)
def test_decode_undoes_encode(pairs, coding):
    targets, anchors = (tensor(side) for side in zip(*pairs))
    assert_close(
        boxes.decode(boxes.encode(targets, anchors, coding), anchors, coding),
        targets,
        rtol=1e-9,
        atol=1e-6,
    )


@settings(max_examples=60, deadline=None)
@given(box, st.lists(point, min_size=5, max_size=5), coding)
def test_decode_landmarks_undoes_encode(anchor, points, coding):
    anchor, points = tensor([anchor]), tensor([points])
    deltas = boxes.encode_landmarks(points, anchor, coding)
    assert deltas.shape == (1, 10)
    assert_close(boxes.decode_landmarks(deltas, anchor, coding), points, rtol=1e-9, atol=1e-6)


def test_deltas_are_those_of_the_definition():
    anchor = tensor([[0, 0, 16, 32]])  # centre (8, 16)
    target = tensor([[4, 4, 36, 36]])  # centre (20, 20), 32 × 32
    assert_close(
        boxes.encode(target, anchor),
        tensor([[12 / 16 / 0.1, 4 / 32 / 0.1, math.log(2) / 0.2, 0.0]]),
    )
    points = tensor([[[8, 16], [24, 16], [8, 48], [0, 0], [16, 32]]])
    assert_close(
        boxes.encode_landmarks(points, anchor), tensor([[0, 0, 10, 0, 0, 10, -5, -5, 5, 5]])
    )


def test_deltas_in_strides_are_those_of_the_definition():
    cell = tensor([[4, 12, 12, 20]])  # the square of stride 8 around (8, 16)
    target = tensor([[4, 4, 36, 36]])  # centre (20, 20), 32 × 32
    assert_close(boxes.encode(target, cell, "distance"), tensor([[0.5, 1.5, 3.5, 2.5]]))
    assert_close(
        boxes.encode(target, cell, "point"), tensor([[1.5, 0.5, math.log(4), math.log(4)]])
    )
    points = tensor([[[8, 16], [16, 16], [8, 32], [0, 0], [16, 24]]])
    for coding in ("distance", "point"):
        assert_close(
            boxes.encode_landmarks(points, cell, coding), tensor([[0, 0, 1, 0, 0, 2, -1, -2, 1, 1]])
        )


def test_unknown_landmarks_stay_unknown():
    points = torch.full((1, 5, 2), torch.nan)
    points[0, 2] = 3.0
    deltas = boxes.encode_landmarks(points, torch.tensor([[0.0, 0, 8, 8]])).view(5, 2)
    assert deltas.isnan().all(1).tolist() == [True, True, False, True, True]


def iou_of_two(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@settings(max_examples=60, deadline=None)
@given(st.lists(box, min_size=1, max_size=4), st.lists(box, min_size=1, max_size=4))
def test_iou_is_that_of_each_pair(first, second):
    expected = tensor([[iou_of_two(a, b) for b in second] for a in first])
    assert_close(boxes.iou(tensor(first), tensor(second)), expected)


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_iou_of_no_boxes_is_empty(n, m):
    assert boxes.iou(torch.zeros(n, 4), torch.zeros(m, 4)).shape == (n, m)


def test_iou_of_empty_boxes_is_zero():
    empty = torch.tensor([[3.0, 3, 3, 3]])
    assert boxes.iou(empty, empty).item() == 0


def test_clip_keeps_boxes_in_the_image():
    clipped = boxes.clip(torch.tensor([[-5.0, -1, 30, 9], [2, 3, 4, 5]]), (8, 20))
    assert clipped.tolist() == [[0, 0, 20, 8], [2, 3, 4, 5]]
