"""The kinds of foreign graphs that can be run: a row and a file for each."""

from __future__ import annotations

from detector.architecture.layers import Size
from detector.foreign import (
    retinaface,
    scrfd,
    yolov5_face,
    yolov8_face,
    yolov8_face_maps,
    yunet,
)
from detector.foreign.kind import Kind, Shapes

KINDS: tuple[Kind, ...] = (
    yunet.KIND,
    scrfd.KIND,
    retinaface.KIND,
    yolov5_face.KIND,
    yolov8_face.KIND,
    yolov8_face_maps.KIND,
)


def kind_of(shapes: Shapes, size: Size) -> Kind | None:
    """The kind of a graph with these outputs for an input of `size` px; None if it is unknown."""
    return next((kind for kind in KINDS if kind.fits(shapes, size)), None)


def known_kinds() -> str:
    """All kinds and their outputs, for messages."""
    return "; ".join(f"{kind.name}: {kind.outputs}" for kind in KINDS)
