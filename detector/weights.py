"""Pretrained weights: our own checkpoints, released RetinaFace ones, ImageNet backbones.

Foreign files name their tensors differently but list them in the same order as ours (stem to
head, finest level first), so they are matched in order, each pair checked by role and shape.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.checkpoint import why_unreadable
from detector.config import Backbone, Detector, Neck, Pixels, canonical
from detector.errors import UserError

IMAGENET = "imagenet"

# torchvision's mean and deviation of RGB pixels in [0, 1].
_TORCHVISION_MEAN = (0.485, 0.456, 0.406)
_TORCHVISION_STD = (0.229, 0.224, 0.225)

_RESNETS = {  # name: block, blocks in each row
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
TORCHVISION_BACKBONES: dict[str, Backbone] = {
    name: Backbone(kind="resnet", stem=64, widths=(64, 128, 256, 512), depths=depths, block=block)
    for name, (block, depths) in _RESNETS.items()
} | {
    "mobilenet_v2": Backbone(kind="mobilenet_v2", stem=32, widths=(16, 24, 32, 64, 96, 160, 320),
                             depths=(1, 2, 3, 4, 3, 3, 1), activation="relu6"),
}


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    source: str
    part: str
    """detector or backbone: what was filled; the rest keeps the values it had."""
    tensors: int
    """Tensors copied into that part: all it has."""
    unused: tuple[str, ...]
    """Names of the source's tensors without a place: a classifier, coarser stages not built."""


def load_weights(model: nn.Module, config: Detector, source: str) -> LoadReport:
    """Copies pretrained weights into `model`, in place.

    Args:
        model: `build_detector(config)`, on any device.
        source: a file (one of our checkpoints, a released RetinaFace checkpoint, an ImageNet
            backbone of MobileNetV1 ×0.25 or of torchvision), read without running code from it;
            or "imagenet": torchvision's ImageNet-1k weights (V1), downloaded by torchvision,
            where the backbone is exactly one of TORCHVISION_BACKBONES.

    Raises:
        UserError: no such file, not a file of weights, weights of another design (names the first
            difference), or no such weights for this backbone. The model is then as it was.
    """
    if source == IMAGENET:
        return _into_backbone(model, _download(config), source, config.pixels)
    state, design = _read(source)
    if design is not None:
        _same_design(design, canonical(config), source)
    first = next(iter(state))
    if design is not None or first.startswith("backbone.stages."):
        return _by_name(model, state, source)
    if first.startswith("body."):  # released RetinaFace
        return _by_order(model, "detector", state, source)
    if first.startswith("stage1."):  # MobileNetV1 ×0.25 of RetinaFace
        return _into_backbone(model, state, source)
    if first.startswith(("conv1.", "features.0.")):  # torchvision
        return _into_backbone(model, state, source, config.pixels)
    raise UserError(f"{source}: first tensor {first} is of no known kind of weights; give a "
                    "checkpoint of this program, a RetinaFace one or an ImageNet backbone")


def _read(source: str) -> tuple[dict[str, Tensor], dict | None]:
    """Tensors by name (without `module.`), and the design that one of our checkpoints states."""
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{source}: no such file of weights; give an existing file, "
                        f"or {IMAGENET}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{source}: cannot be read as weights ({why_unreadable(error)}); "
                        "give a file written by torch.save that holds tensors alone") from error
    state, design = content, None
    if isinstance(content, Mapping):
        design = content.get("detector")
        state = content.get("model", content.get("state_dict", content))
    if not isinstance(state, Mapping) or not state or not all(
            isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{source}: holds no table of named tensors; give a state dict or a "
                        "checkpoint with one under model or state_dict")
    if design is not None:
        design = canonical(Detector.from_dict(design, f"{source}: detector"))
    return {name.removeprefix("module."): value for name, value in state.items()}, design


def _same_design(theirs: dict, ours: dict, source: str) -> None:
    theirs, ours = _flat(theirs), _flat(ours)
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if theirs.get(key) != ours.get(key):
            there, here = (str(side.get(key))[:60] for side in (theirs, ours))
            raise UserError(f"{source}: weights of another design: {key} is {there} there, "
                            f"{here} here; give the configuration they belong to")


def _flat(design: dict) -> dict:
    flat = {}
    for part, values in design.items():
        if isinstance(values, dict):
            flat |= {f"{part}.{key}": value for key, value in values.items()}
        else:
            flat[part] = values
    return flat


def _by_name(model: nn.Module, state: dict[str, Tensor], source: str) -> LoadReport:
    own = model.state_dict()
    for name in [*own, *(name for name in state if name not in own)]:
        here, there = own.get(name), state.get(name)
        if here is None or there is None or here.shape != there.shape:
            raise UserError(_difference(source, name, there, name, here))
    model.load_state_dict(state)
    return LoadReport(source=source, part="detector", tensors=len(own), unused=())


def _into_backbone(model: nn.Module, state: dict[str, Tensor], source: str,
                   pixels: Pixels | None = None) -> LoadReport:
    """Fills the backbone; with `pixels`, from weights that expect torchvision's input."""
    if pixels is not None:
        state = _for_pixels(state, pixels)
    return _by_order(model.backbone, "backbone", state, source)


def _by_order(target: nn.Module, part: str, state: dict[str, Tensor], source: str) -> LoadReport:
    # Older files lack the counters of seen batches, which SGD's momentum form never uses.
    own = [item for item in target.state_dict().items() if not _is_counter(item[0])]
    given = [item for item in state.items() if not _is_counter(item[0])]
    for index in range(max(len(own), len(given)) if part == "detector" else len(own)):
        name, here = own[index] if index < len(own) else (None, None)
        foreign, there = given[index] if index < len(given) else (None, None)
        if (name is None or foreign is None or here.shape != there.shape
                or _role(name) != _role(foreign)):
            raise UserError(_difference(source, foreign, there, name, here))
    with torch.no_grad():
        for (_, here), (_, there) in zip(own, given):
            here.copy_(there)
    return LoadReport(source=source, part=part, tensors=len(own),
                      unused=tuple(name for name, _ in given[len(own):]))


def _role(name: str) -> str:
    return name.rpartition(".")[2]  # weight, bias, running_mean, running_var


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _difference(source: str, foreign: str | None, there: Tensor | None,
                name: str | None, here: Tensor | None) -> str:
    def shown(label, tensor):
        return "nothing" if tensor is None else f"{label} {list(tensor.shape)}"

    return (f"{source}: weights of another design: first difference is {shown(foreign, there)} "
            f"there, {shown(name, here)} here; give the design they belong to")


def _for_pixels(state: dict[str, Tensor], pixels: Pixels) -> dict[str, Tensor]:
    """torchvision weights, made for (RGB / 255 - mean) / std, for input as `pixels` gives it.

    Both inputs are affine in the raw pixel, channel by channel: the scale goes into the first
    convolution, what is left of the offset into the running mean behind it (at the padded border
    that is an approximation).
    """
    order = [2, 1, 0] if pixels.order == "bgr" else [0, 1, 2]  # torchvision's channel of each
    mean = torch.tensor(_TORCHVISION_MEAN)[order] * 255
    std = torch.tensor(_TORCHVISION_STD)[order] * 255
    scale = (torch.tensor(pixels.std) / std).view(1, 3, 1, 1)
    offset = ((torch.tensor(pixels.mean) - mean) / std).view(1, 3, 1, 1)
    names = list(state)
    conv = names[0]
    running_mean = next(name for name in names if name.endswith("running_mean"))
    kernel = state[conv][:, order]
    return state | {conv: kernel * scale,
                    running_mean: state[running_mean] - (kernel * offset).sum(dim=(1, 2, 3))}


def _download(config: Detector) -> dict[str, Tensor]:
    built = canonical(config)["backbone"]
    neck = Neck(levels=config.neck.levels, width=4)  # of a neck only the levels matter here
    name = next((name for name, backbone in TORCHVISION_BACKBONES.items()
                 if canonical(Detector(backbone=backbone, neck=neck))["backbone"] == built), None)
    if name is None:
        backbone = config.backbone
        raise UserError(f"weights: {IMAGENET} has none for this backbone (kind {backbone.kind}, "
                        f"widths {list(backbone.widths)}, activation {backbone.activation}); it "
                        f"must be exactly one of {', '.join(TORCHVISION_BACKBONES)}, or train "
                        "from scratch")
    import torchvision  # takes seconds

    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise UserError(f"weights: {IMAGENET} of {name} could not be downloaded from {weights.url} "
                        f"({error}); download it elsewhere and give the file") from error
