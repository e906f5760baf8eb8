"""Weight files: checkpoints of this program, released detectors, ImageNet backbones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from detector.base.errors import UserError
from detector.config.detector import Detector, Pixels, canonical
from detector.weights.known_files import KNOWN, Weights, graph_weights
from detector.weights.name_maps import looks_like
from detector.weights.onnx_weights import is_onnx
from detector.weights.tensor_file import State, TensorFile

STEM = "backbone.stages.0.0"
"""The first layer of a design."""


def read_weights(source: str, config: Detector) -> Weights:
    """Reads the weights in a file, without running code from it.

    Args:
        source: one of our checkpoints; a released detector (RetinaFace, also the Lightning state of
            ternaus/retinaface; YuNet; SCRFD, also as an ONNX graph; DamoFD; EResFD, by its file
            NAME.base.pth); or an ImageNet backbone (MobileNetV1 ×0.25 of RetinaFace, or
            torchvision's ResNets and MobileNetV2).
        config: the design to use them for. Tensors with this program's names but without a design
            must fit it; RetinaFace's are matched with it before the released designs.

    Raises:
        UserError: no such file, not a file of weights, or of no known design (with the first
            difference).
    """
    if is_onnx(Path(source)):
        return graph_weights(source, config)
    file = TensorFile.read(source)
    for read in KNOWN:
        weights = read(file, config)
        if weights is not None:
            return weights
    seems = looks_like(file.state)
    raise UserError(
        f"{source}: first tensor {file.first} is of no known kind of weights"
        + (f"; it looks like {seems}" if seems else "")
        + "; give a checkpoint of this program, a released one of RetinaFace, YuNet, SCRFD, "
        "DamoFD or EResFD, or an ImageNet backbone"
    )


def load_weights(model: nn.Module, config: Detector, source: str) -> Weights:
    """Copies the weights of a whole detector into `model`, in place: all of them, or none.

    Args:
        model: `build_detector(config)`, on any device.
        source: as for `read_weights`.

    Raises:
        UserError: as `read_weights`, only a backbone, or weights of another design (with the first
            difference); the model is unchanged.
    """
    weights = detector_weights(config, source)
    model.load_state_dict(weights.state, strict=False)  # older files lack unused counters
    return weights


def detector_weights(config: Detector, source: str) -> Weights:
    """The weights of a whole detector, which fit `config`; takes no memory for its network.

    Raises:
        UserError: as `load_weights`.
    """
    weights = read_weights(source, config)
    if weights.part != "detector":
        raise UserError(
            f"{source}: holds a backbone ({weights.title}), not a trained detector; "
            "training can start from it"
        )
    _check_same_design(canonical(weights.config), canonical(config), source)
    return replace(weights, state=adapt_input(weights, config.pixels), pixels=config.pixels)


def adapt_input(weights: Weights, ours: Pixels) -> State:
    """The weights converted to the input normalisation and channel order of `ours`.

    Both inputs are affine in the raw pixel, channel by channel: the scale goes into the first
    convolution, the offset into the running mean after it (an approximation at the padded border).
    A design with input normalisation learns this by itself, and one of a plugin whose stem is
    another layer has to.
    """
    theirs, state = weights.pixels, weights.state
    if theirs is None or theirs == ours or weights.config.backbone.input_norm:
        return state
    order = [0, 1, 2] if theirs.order == ours.order else [2, 1, 0]  # their channel of each of ours
    mean, std = (torch.tensor(values)[order] for values in (theirs.mean, theirs.std))
    scale = (torch.tensor(ours.std) / std).view(1, 3, 1, 1)
    offset = ((torch.tensor(ours.mean) - mean) / std).view(1, 3, 1, 1)
    conv, norm = f"{STEM}.conv.weight", f"{STEM}.norm.running_mean"
    if conv not in state:
        return state
    kernel = state[conv][:, order]
    constant = (kernel * offset).sum(dim=(1, 2, 3))  # what the offset adds to the output
    adapted = state | {conv: kernel * scale}
    if norm in state:
        adapted[norm] = state[norm] - constant
    elif (bias := f"{STEM}.conv.bias") in state:
        adapted[bias] = state[bias] + constant
    return adapted


def _check_same_design(theirs: dict, ours: dict, source: str) -> None:
    theirs, ours = _flat(theirs), _flat(ours)
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if theirs.get(key) != ours.get(key):
            there, here = (str(side.get(key))[:60] for side in (theirs, ours))
            raise UserError(
                f"{source}: weights of another design: {key} is {there} there, "
                f"{here} here; give the configuration they belong to"
            )


def _flat(design: dict) -> dict:
    flat: dict[str, object] = {}
    for part, values in design.items():
        if isinstance(values, dict):
            flat |= {f"{part}.{key}": value for key, value in values.items()}
        else:
            flat[part] = values
    return flat
