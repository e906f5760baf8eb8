"""Parameters and multiply-accumulates of any ONNX graph, from its nodes.

The convention is thop's, as in `detector.architecture.layers`: convolutions and matrix products
count their products, batch normalisation 4 for each element, average pooling 1 for each output
element. Batch norms that an exporter folded into convolutions are gone, and count nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detector.architecture.layers import Size
from detector.base.files import read_bytes

if TYPE_CHECKING:
    import onnx

_WEIGHTS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
"""Convolutions → the input that has the weights."""
_PRODUCTS = {"Gemm": 0, "MatMul": 0, "MatMulInteger": 0, "QLinearMatMul": 0}
"""Matrix products → their first factor."""
_TO_FLOAT = ("DequantizeLinear",)
_PER_CHANNEL = ("Mul", "Add", "Sub", "Div", "PRelu", "InstanceNormalization", "GroupNormalization")
_NORM, _POOL = "BatchNormalization", ("AveragePool", "GlobalAveragePool")


@dataclass(frozen=True)
class GraphCost:
    params: int
    """Values of all weights in floating point or 8 bits; see `_params`."""
    macs: int
    """For one image of `size`."""
    size: Size
    """(height, width) px of the image that was counted."""
    folded: bool
    """Whether no batch normalisation is left: if there was any, it is folded into convolutions."""

    def macs_at(self, size: Size) -> int:
        """For an image of another size; in proportion to its area."""
        return round(self.macs * math.prod(size) / math.prod(self.size))


def graph_cost(path: Path, size: Size) -> GraphCost:
    """Counts a graph with one image input [1, 3, height, width], by running it once.

    Args:
        size: of the image; the fixed one if the graph has one.
    """
    import onnx

    model = onnx.load_model_from_string(read_bytes(path))
    shapes = _shapes(model, size)
    macs = sum(_macs(node, shapes) for node in model.graph.node)
    norms = [node for node in model.graph.node if node.op_type == _NORM]
    return GraphCost(_params(model), macs, size, folded=not norms)


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    kind = node.op_type
    if kind in _WEIGHTS:
        weights = shapes[node.input[_WEIGHTS[kind]]]
        positions = shapes[node.input[0] if kind == "ConvTranspose" else node.output[0]]
        return math.prod(positions) * math.prod(weights[1:])
    if kind in _PRODUCTS:
        left = shapes[node.input[_PRODUCTS[kind]]]
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(shapes[node.output[0]]) * left[0 if transposed else -1]
    if kind == _NORM:
        return 4 * math.prod(shapes[node.output[0]])
    return math.prod(shapes[node.output[0]]) if kind in _POOL else 0


def _params(model: onnx.ModelProto) -> int:
    """Weights and biases of convolutions, matrix products and norms, and factors and offsets of
    channels; constants of other formulas, such as the cells of a grid, are no parameters."""
    import onnx

    kinds = ("FLOAT", "FLOAT16", "BFLOAT16", "INT8", "UINT8")
    stored, names = _tensors(model), set()
    for node in model.graph.node:
        if node.op_type in _WEIGHTS or node.op_type in _PRODUCTS or node.op_type in _TO_FLOAT:
            names.update(node.input)
        elif node.op_type == _NORM:
            names.update(node.input[:3])
        elif node.op_type in _PER_CHANNEL:
            names.update(name for name in node.input if name in stored and _varies(stored[name]))
    return sum(
        math.prod(tensor.dims)
        for name, tensor in stored.items()
        if name in names and onnx.TensorProto.DataType.Name(tensor.data_type) in kinds
    )


def _varies(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor has one value for each channel: not a grid, and not the ones and zeros that
    stand for an affine map that is missing."""
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    return values.size == max(values.shape) and not (values == values.flat[0]).all()


def _tensors(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initialisers and constants with at least one axis, which scalars of formulas lack."""
    constants = {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return {name: tensor for name, tensor in (constants | stored).items() if tensor.dims}


def _shapes(model: onnx.ModelProto, size: Size) -> dict[str, tuple[int, ...]]:
    """The shapes of all that `_macs` asks for, as ONNX Runtime computes them."""
    import onnx
    import onnxruntime

    tensors = {name: tuple(tensor.dims) for name, tensor in _tensors(model).items()}
    wanted: set[str] = set()
    for node in model.graph.node:
        if node.op_type in _WEIGHTS or node.op_type in _PRODUCTS:
            wanted |= {name for name in (*node.input, *node.output) if name}
        elif node.op_type == _NORM or node.op_type in _POOL:
            wanted.add(node.output[0])
    inputs = [value for value in model.graph.input if value.name not in tensors]
    traced = onnx.ModelProto()
    traced.CopyFrom(model)
    computed = sorted({name for node in model.graph.node for name in node.output if name} & wanted)
    computed = [name for name in computed if name not in tensors]
    del traced.graph.output[:]
    traced.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        traced.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    elem = inputs[0].type.tensor_type.elem_type
    image = np.zeros((1, 3, *size), onnx.helper.tensor_dtype_to_np_dtype(elem))
    values = session.run(computed, {inputs[0].name: image})
    shapes = {name: tuple(value.shape) for name, value in zip(computed, values)}
    return tensors | shapes | {inputs[0].name: image.shape}
