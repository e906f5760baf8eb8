"""YOLOv8-face as Ultralytics exports it: one output [1, 5, N] or [1, 20, N], decoded in the graph.

cx, cy, w, h, score and, with landmarks, x, y and visibility of five points; one point per cell.
"""

from __future__ import annotations

from detector.architecture.layers import Size
from detector.foreign import yolo
from detector.foreign.kind import Candidates, Kind, Outputs, Shapes


def _fits(shapes: Shapes, size: Size) -> bool:
    return [*shapes.values()] in [[(1, rows, yolo.cells(size))] for rows in (5, 20)]


def _decode(outputs: Outputs, size: Size) -> Candidates:
    rows = next(iter(outputs.values()))[0].t()
    points = rows[:, 5:].unflatten(1, (5, 3))[..., :2] if rows.shape[1] > 5 else None
    return Candidates(yolo.corners(rows[:, :4]), rows[:, 4], points)


KIND = Kind(
    name="YOLOv8-face",
    outputs="one output 1×5×N (box, score) or 1×20×N (with landmarks), one point per cell",
    fits=_fits,
    decode=_decode,
    pixels=yolo.PIXELS,
    padding=yolo.PADDING,
    evaluation=yolo.EVALUATION,
)
