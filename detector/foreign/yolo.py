"""What the YOLO faces share: input, protocol, and boxes given by centre and size."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.architecture.layers import Size
from detector.config.detector import Pixels
from detector.config.recipe import Evaluation

STRIDES = (8, 16, 32)
PIXELS = Pixels(order="rgb", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
PADDING = (114, 114, 114)
EVALUATION = Evaluation(size=640, interpolation="linear", nms_iou=0.5)
"""Of test_widerface.py in deepcam-cn/yolov5-face, at the VGA size of its table."""


def cells(size: Size) -> int:
    """The number of cells of all strides."""
    return sum(size[0] // stride * (size[1] // stride) for stride in STRIDES)


def corners(boxes: Tensor) -> Tensor:
    """Boxes [A, 4] cx, cy, w, h as x1, y1, x2, y2."""
    return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)
