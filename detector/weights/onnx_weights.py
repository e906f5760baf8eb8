"""The weights in an ONNX graph of SCRFD, whose exporter folded batch norms into convolutions.

Its convolutions come in the order of our layers. A folded norm becomes one that changes nothing but
adds the bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detector.base.files import read_bytes
from detector.network.model import FaceDetector

if TYPE_CHECKING:
    import onnx

State = dict[str, Tensor]


def is_onnx(path: Path) -> bool:
    """Whether a file's name is that of an ONNX graph."""
    return path.suffix == ".onnx"


def read_graph(path: Path) -> onnx.GraphProto:
    """The graph in a file.

    Raises:
        ImportError: onnx is not installed.
        OSError: it cannot be read.
        ValueError: it is no ONNX graph.
    """
    import onnx

    content = read_bytes(path)
    try:
        return onnx.load_model_from_string(content).graph
    except Exception:  # protobuf raises its own errors
        raise ValueError("it is no readable ONNX graph") from None


def is_scrfd(graph: onnx.GraphProto) -> bool:
    """Whether a graph is SCRFD with a head that all strides share."""
    return any(tensor.name.startswith("bbox_head.stride_cls.0.") for tensor in graph.initializer)


def scrfd_state(graph: onnx.GraphProto, blank: FaceDetector) -> list[tuple[str, Tensor]]:
    """Its tensors with the names of `blank`, a network on the meta device, in its order, but for
    tensors that only one of both has, which come under the names that they have there.
    """
    layers = list(_layers(graph))
    norms = list(_group_norms(graph))
    scales = [tensor for name, tensor in _tensors(graph).items() if name.endswith(".scale")]
    state: State = {}
    for name, module in blank.named_modules():
        if isinstance(module, nn.Conv2d) and layers:
            weight, bias = layers.pop(0)
            state[f"{name}.weight"] = weight
            norm = getattr(blank.get_submodule(name.rpartition(".")[0]), "norm", None)
            if isinstance(norm, nn.BatchNorm2d):
                state |= _folded(f"{name.rpartition('.')[0]}.norm", bias, norm.eps, len(weight))
            elif bias is not None:
                state[f"{name}.bias"] = bias
        elif isinstance(module, nn.GroupNorm) and norms:
            state[f"{name}.weight"], state[f"{name}.bias"] = norms.pop(0)
        elif name.startswith("heads.scales.") and scales:
            state[f"{name}.factor"] = scales.pop(0)
    left = {f"convolution {i}": weight for i, (weight, _) in enumerate(layers)}
    return [*state.items(), *left.items()]


def _folded(name: str, bias: Tensor | None, eps: float, channels: int) -> State:
    """A batch norm that adds the bias and changes nothing else."""
    ones = torch.ones(channels)
    return {
        f"{name}.weight": ones,
        f"{name}.bias": torch.zeros(channels) if bias is None else bias,
        f"{name}.running_mean": torch.zeros(channels),
        f"{name}.running_var": ones - eps,
    }


def _tensors(graph: onnx.GraphProto) -> dict[str, Tensor]:
    from onnx import numpy_helper

    return {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
    }


def _layers(graph: onnx.GraphProto) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weight and bias of each convolution, in order; those that strides share once."""
    tensors, seen = _tensors(graph), set()
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in tensors and node.input[1] not in seen:
            seen.add(node.input[1])
            bias = tensors.get(node.input[2]) if len(node.input) > 2 else None
            yield tensors[node.input[1]], bias


def _group_norms(graph: onnx.GraphProto) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and bias of each group norm: the Mul and the Add after an InstanceNormalization."""
    tensors, seen = _tensors(graph), set()
    weight: Tensor | None = None
    for node in graph.node:
        constants = [name for name in node.input if name in tensors and tensors[name].ndim == 3]
        if node.op_type == "Mul" and constants:
            weight = None if constants[0] in seen else tensors[constants[0]].flatten()
            seen.add(constants[0])
        elif node.op_type == "Add" and constants and weight is not None:
            yield weight, tensors[constants[0]].flatten()
            weight = None
