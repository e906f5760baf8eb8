"""YuNet of OpenCV's zoo and of ShiqiYu/libfacedetection.train: twelve outputs, four per stride.

cls, obj [1, cells, 1] after the sigmoid, bbox [1, cells, 4], kps [1, cells, 10]; the score is the
product of cls and obj (OpenCV takes its root, which ranks boxes alike).
"""

from __future__ import annotations

import torch

from detector.architecture.layers import Size
from detector.boxes.anchors import priors
from detector.boxes.coding import decode, decode_landmarks
from detector.config.presets import load_preset
from detector.foreign.kind import Candidates, Kind, Outputs, Shapes

STRIDES = (8, 16, 32)
_SIZES = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
_DESIGN, _RECIPE = load_preset("yunet_n")


def _fits(shapes: Shapes, size: Size) -> bool:
    expected = {
        f"{name}_{stride}": (size[0] // stride * (size[1] // stride), values)
        for name, values in _SIZES.items()
        for stride in STRIDES
    }
    return {name: shape[-2:] for name, shape in shapes.items()} == expected


def _decode(outputs: Outputs, size: Size) -> Candidates:
    cls, obj, bbox, kps = (
        torch.cat([outputs[f"{name}_{stride}"].reshape(-1, values) for stride in STRIDES])
        for name, values in _SIZES.items()
    )
    cells = priors(_DESIGN, size)
    return Candidates(
        decode(bbox, cells.references, cells.coding),
        (cls * obj)[:, 0],
        decode_landmarks(kps, cells.references, cells.coding),
    )


KIND = Kind(
    name="YuNet",
    outputs="cls, obj, bbox and kps of strides 8, 16 and 32 (cls_8 … kps_32)",
    fits=_fits,
    decode=_decode,
    pixels=_DESIGN.pixels,
    padding=(0, 0, 0),
    evaluation=_RECIPE.evaluation,
)
