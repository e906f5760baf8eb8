"""SCRFD of InsightFace, with and without landmarks: six or nine outputs, whatever their names.

Scores [N, 1] after the sigmoid, boxes [N, 4] as distances in strides, landmarks [N, 10] as offsets
in strides, two anchors per cell of strides 8, 16 and 32; some exports have a batch axis in front.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detector.architecture.layers import Size
from detector.boxes.anchors import priors
from detector.boxes.coding import decode, decode_landmarks
from detector.config.presets import load_preset
from detector.foreign.kind import Candidates, Kind, Outputs, Shapes

_DESIGN, _RECIPE = load_preset("scrfd_0.5g")


def _fits(shapes: Shapes, size: Size) -> bool:
    rows = priors(_DESIGN, size).counts
    found = sorted(shape[-2:] for shape in shapes.values())
    return any(
        found == sorted((count, values) for count in rows for values in sizes)
        for sizes in ((1, 4), (1, 4, 10))
    )


def _decode(outputs: Outputs, size: Size) -> Candidates:
    anchors = priors(_DESIGN, size)
    boxes, landmarks = _levels(outputs, 4), _levels(outputs, 10)
    scores = _levels(outputs, 1)
    assert boxes is not None and scores is not None
    return Candidates(
        decode(boxes, anchors.references, anchors.coding),
        scores[:, 0],
        None
        if landmarks is None
        else decode_landmarks(landmarks, anchors.references, anchors.coding),
    )


def _levels(outputs: Outputs, values: int) -> Tensor | None:
    """The outputs [A, values] of all levels, finest first; None if there are none."""
    levels = [
        output.reshape(-1, values) for output in outputs.values() if output.shape[-1] == values
    ]
    return torch.cat(sorted(levels, key=len, reverse=True)) if levels else None


KIND = Kind(
    name="SCRFD",
    outputs="scores N×1, boxes N×4 and perhaps landmarks N×10 of strides 8, 16 and 32, "
    "two anchors per cell",
    fits=_fits,
    decode=_decode,
    pixels=_DESIGN.pixels,
    padding=(128, 128, 128),
    evaluation=_RECIPE.evaluation,
)
