"""YOLOv8-face as derronqi/yolov8-face exports it: three maps [1, 80, H, W], not decoded.

Of each cell: four distances as distributions over 0 … 15 strides (distribution focal loss), the
logit of a face, and x, y and visibility of five points, relative to the cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detector.architecture.layers import Size
from detector.foreign import yolo
from detector.foreign.kind import Candidates, Kind, Outputs, Shapes

BINS = 16
"""Values that a distance's distribution is over, in strides."""


def _fits(shapes: Shapes, size: Size) -> bool:
    maps = [(1, 4 * BINS + 16, size[0] // s, size[1] // s) for s in yolo.STRIDES]
    return sorted(shapes.values()) == sorted(maps)


def _decode(outputs: Outputs, size: Size) -> Candidates:
    maps = sorted((output[0] for output in outputs.values()), key=Tensor.numel, reverse=True)
    levels = [_level(rows, stride) for rows, stride in zip(maps, yolo.STRIDES)]
    boxes, scores, landmarks = (torch.cat(parts) for parts in zip(*levels))
    return Candidates(boxes, scores, landmarks)


def _level(rows: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and landmarks of one map [80, H, W]."""
    _, height, width = rows.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corners = torch.stack((x, y), dim=-1).reshape(-1, 2).float()
    cells = rows.flatten(1).t()  # [H · W, 80]
    distances = cells[:, : 4 * BINS].unflatten(1, (4, BINS)).softmax(dim=2) @ torch.arange(
        BINS, dtype=torch.float32
    )
    centres = corners + 0.5
    boxes = torch.cat((centres - distances[:, :2], centres + distances[:, 2:]), dim=1)
    points = cells[:, 4 * BINS + 1 :].unflatten(1, (5, 3))[..., :2] * 2 + corners[:, None]
    return boxes * stride, cells[:, 4 * BINS].sigmoid(), points * stride


KIND = Kind(
    name="YOLOv8-face (maps)",
    outputs="three maps 1×80×H×W of strides 8, 16 and 32 (distances, class, landmarks)",
    fits=_fits,
    decode=_decode,
    pixels=yolo.PIXELS,
    padding=yolo.PADDING,
    evaluation=yolo.EVALUATION,
)
