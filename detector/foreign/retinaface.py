"""RetinaFace as convert_to_onnx.py of biubug6/Pytorch_Retinaface writes it: three outputs.

Boxes [1, A, 4] and landmarks [1, A, 10] as deltas, classes [1, A, 2] after the softmax.
"""

from __future__ import annotations

from detector.architecture.layers import Size
from detector.boxes.anchors import priors
from detector.boxes.coding import decode, decode_landmarks
from detector.config.presets import load_preset
from detector.foreign.kind import Candidates, Kind, Outputs, Shapes

_DESIGN, _RECIPE = load_preset("retinaface_mobile025")


def _fits(shapes: Shapes, size: Size) -> bool:
    count = sum(priors(_DESIGN, size).counts)
    return sorted(shape[-2:] for shape in shapes.values()) == [(count, n) for n in (2, 4, 10)]


def _decode(outputs: Outputs, size: Size) -> Candidates:
    by_values = {output.shape[-1]: output[0] for output in outputs.values()}
    anchors = priors(_DESIGN, size)
    return Candidates(
        decode(by_values[4], anchors.references, anchors.coding),
        by_values[2][:, 1],
        decode_landmarks(by_values[10], anchors.references, anchors.coding),
    )


KIND = Kind(
    name="RetinaFace",
    outputs="boxes A×4, classes A×2 and landmarks A×10 of strides 8, 16 and 32, "
    "two anchors per cell",
    fits=_fits,
    decode=_decode,
    pixels=_DESIGN.pixels,
    padding=(104, 117, 123),
    evaluation=_RECIPE.evaluation,
)
