"""Convolutions of an OpenVINO graph in 8-bit integers, by NNCF's post-training quantisation.

Weights are int8 with a scale for each output channel; activations 8 bits, with the range that
calibration images have shown; biases are corrected for what rounding does to the layers before
(fast bias correction).
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from detector.export.exporter import INPUT, save_openvino

PACKAGES = ("openvino", "nncf")


def convolutions(path: Path) -> dict[str, str]:
    """Name of each convolution → that of its weight."""
    import openvino

    operations = openvino.Core().read_model(path).get_ordered_ops()
    names = [op.get_friendly_name() for op in operations if "Convolution" in op.get_type_name()]
    return {name: f"{name.split('/')[0]}.weight" for name in names}


def quantize(
    path: Path, target: Path, images: Sequence[np.ndarray], keep_float: Collection[str] = ()
) -> None:
    """As `int8_onnx.quantize`, of an exported .xml file with its .bin beside it."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it looks for a GPU
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(path)
    # Else sums, too, and with them the arithmetic of boxes, whose range is that of an image.
    others = {op.get_type_name() for op in model.get_ops()} - {"Convolution", "GroupConvolution"}
    ignored = nncf.IgnoredScope(names=list(keep_float), types=sorted(others), validate=False)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantized = nncf.quantize(
            model,
            nncf.Dataset(images, lambda image: {INPUT: image}),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=ignored,
        )
    save_openvino(quantized, target)
