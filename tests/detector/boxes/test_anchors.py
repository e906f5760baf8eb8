"""Anchors against plain nested loops that follow their definition."""

import math

import pytest
import torch
from torch.testing import assert_close

from detector.boxes.anchors import anchors, priors


def by_loops(config, height, width):
    boxes = []
    for level, shapes in zip(config.neck.levels, config.anchor_shapes()):
        stride = 2**level
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                x = (column + config.anchors.offset) * stride
                y = (row + config.anchors.offset) * stride
                for w, h in shapes:
                    boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return torch.tensor(boxes)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [(64, 96), (75, 131)])
def test_anchors_are_those_of_nested_loops(random_design, seed, size):
    config = random_design(seed)
    result = priors(config, size)
    assert_close(result.anchors, by_loops(config, *size))
    assert sum(result.counts) == len(result.anchors) == len(result.references)


def test_references_of_codings_in_strides_are_squares_around_the_anchors(preset):
    result = priors(preset("scrfd_0.5g"), (64, 96))
    low, high = result.references.split(2, dim=1)
    a, b = result.anchors.split(2, dim=1)
    assert_close(low + high, a + b)
    assert result.counts == (2 * 8 * 12, 2 * 4 * 6, 2 * 2 * 3)
    sides = torch.repeat_interleave(torch.tensor([8.0, 16, 32]), torch.tensor(result.counts))
    assert_close(high - low, sides[:, None].expand(-1, 2))
    assert result.anchors[:3].tolist() == [[-8, -8, 8, 8], [-16, -16, 16, 16], [0, -8, 16, 8]]


def test_points_are_the_corners_of_their_cells(preset):
    result = priors(preset("yunet_n"), (32, 32))
    assert result.references is result.anchors
    assert result.anchors[:2].tolist() == [[-4, -4, 4, 4], [4, -4, 12, 4]]


def test_anchors_given_by_shapes(preset):
    boxes = anchors(preset("tiny_ssd300"), (300, 300))
    assert boxes.shape == (19 * 19 * 9, 4)
    assert_close(boxes[4], torch.tensor([8 - 71.5, 8 - 113.75, 8 + 71.5, 8 + 113.75]))


def test_baseline_has_16800_at_640(preset):
    boxes = anchors(preset("retinaface_mobile025"), (640, 640))
    assert boxes.shape == (16_800, 4) and boxes.dtype == torch.float32
    assert boxes[:2].tolist() == [[-4, -4, 12, 12], [-12, -12, 20, 20]]


def test_sizes_and_ratios_keep_the_area(preset):
    boxes = anchors(preset("retinaface_resnet18_p2p6"), (32, 32))[:6]
    sides = boxes[:, 2:] - boxes[:, :2]
    assert_close(sides.prod(1).sqrt(), torch.tensor([8, 8, 10.0794, 10.0794, 12.6992, 12.6992]))
    assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1, 0.5, 1, 0.5, 1]))


def test_anchors_are_cached_for_a_size(preset):
    config = preset("retinaface_mobile025")
    assert anchors(config, (320, 320)) is anchors(config, [320, 320], torch.device("cpu"))
