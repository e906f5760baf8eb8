"""Convolutions of an ONNX graph in 8-bit integers, by ONNX Runtime's static quantisation.

Weights are int8 with a scale for each output channel; activations uint8, with the range that
calibration images have shown.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from detector.export.exporter import INPUT

PACKAGES = ("onnx", "onnxruntime")


def convolutions(path: Path) -> dict[str, str]:
    """Name of each convolution → that of its weight."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return {node.name: node.input[1] for node in nodes if node.op_type == "Conv"}


def quantize(
    path: Path, target: Path, images: Sequence[np.ndarray], keep_float: Collection[str] = ()
) -> None:
    """Write a graph with its convolutions in int8.

    Args:
        path: an exported graph (.onnx).
        images: uint8 [1, 3, H, W], raw BGR, for the ranges of activations; of one size.
        keep_float: names of convolutions that stay as they are.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self):
            self._images = iter(images)

        def get_next(self):
            image = next(self._images, None)
            return None if image is None else {INPUT: image}

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises to preprocess the graph, which changes nothing here
    try:
        quantize_static(
            path,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(keep_float),
        )
    finally:
        logger.setLevel(level)
