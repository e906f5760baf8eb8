"""An ONNX graph with convolutions in 8-bit integers, by ONNX Runtime's static quantisation.

Weights are int8 with a scale for each output channel; activations uint8, with the range that
calibration images have shown. The layers that lose most are found part by part and left in float.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.base.errors import UserError

BACKBONE = "backbone"


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What `quantize_within` has found."""

    ap_before: Mapping[str, float]
    """Of the float graph, by level."""
    ap_after: Mapping[str, float]
    """Of the quantised graph."""
    float_parts: tuple[str, ...]
    """Parts of the network whose convolutions stayed in float."""
    tried: int
    """Graphs in int8 that were measured."""

    @property
    def loss(self) -> float:
        """Of mean AP."""
        return _mean(self.ap_before) - _mean(self.ap_after)


def convolutions(path: Path) -> dict[str, list[str]]:
    """The convolutions of an exported graph by part of the network: stages of the backbone
    (backbone.0, …), neck, context, heads.

    Returns:
        Part → names of its nodes, in the order of the graph.
    """
    import onnx

    parts: dict[str, list[str]] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        if node.op_type == "Conv":
            words = node.input[1].removeprefix("model.").split(".")  # the weight's name
            part = words[0]
            if part == BACKBONE:
                part += "." + next(word for word in words if word.isdecimal())
            parts.setdefault(part, []).append(node.name)
    return parts


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
            return None if image is None else {"images": image}

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


def quantize_within(
    path: Path,
    target: Path,
    images: Sequence[np.ndarray],
    evaluate: Callable[[Path], Mapping[str, float]],
    max_loss: float,
    progress: Callable[[str], None] = lambda line: None,
) -> Quantized:
    """Write the quantised graph that loses at most `max_loss`, with as few parts in float as the
    search finds: each part alone is left in float once, and then those that gain most together.

    Args:
        path: an exported graph (.onnx).
        target: the file to write.
        images: as for `quantize`.
        evaluate: AP of a graph by level, in [0, 1].
        max_loss: of mean AP.
        progress: called with a line for each measured graph.

    Raises:
        UserError: no part can be quantised within `max_loss`.
    """
    parts = convolutions(path)
    before = evaluate(path)
    progress(f"float: mean AP {_mean(before):.4f}")
    measured: dict[tuple[str, ...], tuple[Path, Mapping[str, float]]] = {}

    def loss(*float_parts: str) -> float:
        """Of the graph with these parts in float, which is written and measured once."""
        if float_parts not in measured:
            file = Path(folder) / f"{len(measured)}.onnx"
            quantize(path, file, images, [name for part in float_parts for name in parts[part]])
            measured[float_parts] = file, evaluate(file)
            left = f", but {', '.join(float_parts)}" if float_parts else ""
            progress(f"int8{left}: mean AP {_mean(measured[float_parts][1]):.4f}")
        return _mean(before) - _mean(measured[float_parts][1])

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".int8-") as folder:
        kept: tuple[str, ...] = ()
        if loss() > max_loss:
            ranked = sorted(parts, key=loss)
            for count in range(1, len(ranked)):
                kept = tuple(part for part in parts if part in ranked[:count])
                if loss(*kept) <= max_loss:
                    break
            else:
                raise UserError(
                    f"{target}: every part of the network in int8 loses more than {max_loss:g} of "
                    f"mean AP (all of them {loss(ranked[0]):.4f} and more); allow more by "
                    "--max-loss, or export in float"
                )
        file, after = measured[kept]
        file.replace(target)
    return Quantized(ap_before=before, ap_after=after, float_parts=kept, tried=len(measured))


def _mean(ap: Mapping[str, float]) -> float:
    return sum(ap.values()) / len(ap)
