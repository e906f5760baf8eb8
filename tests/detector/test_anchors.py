"""Anchors against plain nested loops, written from their definition."""

import math

import pytest
import torch
from torch.testing import assert_close

from detector.anchors import anchors


def by_loops(config, height, width):
    boxes = []
    for level, shapes in zip(config.neck.levels, config.anchor_shapes()):
        stride = 2**level
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                for w, h in shapes:
                    boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return torch.tensor(boxes)


@pytest.mark.parametrize("seed", range(13))
@pytest.mark.parametrize("size", [(64, 96), (75, 131)])
def test_anchors_are_those_of_nested_loops(random_design, seed, size):
    config = random_design(seed)
    assert_close(anchors(config, size), by_loops(config, *size))


def test_baseline_has_16800_at_640(preset):
    boxes = anchors(preset("retinaface_mobile025"), (640, 640))
    assert boxes.shape == (16_800, 4) and boxes.dtype == torch.float32
    assert boxes[:2].tolist() == [[-4, -4, 12, 12], [-12, -12, 20, 20]]


def test_sizes_and_ratios_keep_the_area(preset):
    boxes = anchors(preset("retinaface_resnet18"), (32, 32))[:6]
    sides = boxes[:, 2:] - boxes[:, :2]
    assert_close(sides.prod(1).sqrt(), torch.tensor([8, 8, 10.0794, 10.0794, 12.6992, 12.6992]))
    assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1, 0.5, 1, 0.5, 1]))


def test_anchors_are_made_once_for_a_size(preset):
    config = preset("retinaface_mobile025")
    assert anchors(config, (320, 320)) is anchors(config, [320, 320], torch.device("cpu"))
