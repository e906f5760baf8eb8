"""YOLOv5-face (deepcam-cn/yolov5-face, export.py): one output [1, N, 16], decoded in the graph.

cx, cy, w, h, objectness, x and y of five landmarks, class; three anchors per cell.
"""

from __future__ import annotations

from detector.architecture.layers import Size
from detector.foreign import yolo
from detector.foreign.kind import Candidates, Kind, Outputs, Shapes


def _fits(shapes: Shapes, size: Size) -> bool:
    return [*shapes.values()] == [(1, 3 * yolo.cells(size), 16)]


def _decode(outputs: Outputs, size: Size) -> Candidates:
    (rows,) = next(iter(outputs.values()))
    return Candidates(
        yolo.corners(rows[:, :4]), rows[:, 4] * rows[:, 15], rows[:, 5:15].unflatten(1, (5, 2))
    )


KIND = Kind(
    name="YOLOv5-face",
    outputs="one output 1×N×16 (box, objectness, landmarks, class), three anchors per cell",
    fits=_fits,
    decode=_decode,
    pixels=yolo.PIXELS,
    padding=yolo.PADDING,
    evaluation=yolo.EVALUATION,
)
