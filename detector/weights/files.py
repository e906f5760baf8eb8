"""Weight files: checkpoints of this program, released detectors, ImageNet backbones.

Other programs name their tensors differently. RetinaFace and torchvision list them in the same
order (stem to head, finest level first), so they are matched by order, and each pair is checked by
role and shape; those of YuNet, SCRFD, DamoFD and EResFD are renamed (`name_maps`), or read from a
graph of SCRFD.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.base.errors import ConfigError, UserError
from detector.base.files import cannot_read, open_file
from detector.config.detector import Detector, Pixels, arch_hash, canonical
from detector.config.presets import load_preset
from detector.network.model import blank_detector
from detector.weights import pretrained
from detector.weights.checkpoint import (
    check_finite,
    is_state_dict,
    read_design,
    read_tensors,
)
from detector.weights.matching import by_name, by_order, check_names
from detector.weights.name_maps import SCRFD_PRESETS, NameMap, looks_like, name_map_of
from detector.weights.onnx_weights import is_onnx, is_scrfd, read_graph, scrfd_state
from detector.weights.pretrained import (
    IMAGENET,
    MOBILENET_V1_025,
    RELEASED,
    TORCHVISION_BACKBONES,
    TORCHVISION_PIXELS,
    backbone_only,
)

State = dict[str, Tensor]

LIGHTNING = "model."
"""What Lightning puts before the names of a network's tensors in ternaus/retinaface."""
TERNAUS_SHA256 = "f168fae3c"
"""Of the weights that ternaus/retinaface released, without that beginning. Unlike RetinaFace's own,
their pixels are normalised as torchvision's."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights in a file, with this program's names."""

    source: str
    """The file."""
    title: str
    part: str
    """detector or backbone."""
    config: Detector
    """Their design; for part backbone only its backbone matters."""
    state: State
    """State dict of that part of `build_detector(config)`."""
    sha256: str
    training: dict | None = None
    """`recipe` and `state` of a checkpoint of this program; None for other files."""
    pixels: Pixels | None = None
    """The input that the first convolution expects; None if unknown."""


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
        return _read_graph(source, config)
    state, design, training = _read(source)
    sha256 = _sha256_of(source)
    first = next(iter(state))
    if design is not None:
        check_names(source, state, design)
        return Weights(
            title=f"a checkpoint of design {arch_hash(design)}",
            part="detector",
            config=design,
            state=state,
            training=training,
            pixels=design.pixels,
            source=source,
            sha256=sha256,
        )
    if first.startswith("backbone.stages."):
        check_names(source, state, config)
        return Weights(
            title="tensors with this program's names",
            part="detector",
            config=config,
            state=state,
            pixels=config.pixels,
            source=source,
            sha256=sha256,
        )
    known = name_map_of(state)
    if known is not None:
        try:
            named = known.translate(_with_other_files(source, known, state))
        except ConfigError as error:
            raise UserError(f"{source}: weights of another design: {error}") from error
        return _released(source, sha256, known.title, named, config, known.presets)
    if first.startswith(("body.", f"{LIGHTNING}body.")):
        by_ternaus = first.startswith(LIGHTNING) or sha256.startswith(TERNAUS_SHA256)
        state = {name.removeprefix(LIGHTNING): value for name, value in state.items()}
        designs = {"this design": config} | {name: load_preset(name)[0] for name in RELEASED}
        name, named = by_order(source, state, "", designs)
        return Weights(
            title=f"released RetinaFace weights of {name}",
            part="detector",
            config=designs[name],
            state=named,
            pixels=TORCHVISION_PIXELS if by_ternaus else designs[name].pixels,
            source=source,
            sha256=sha256,
        )
    if first.startswith("stage1."):
        design = backbone_only(MOBILENET_V1_025)
        _, named = by_order(source, state, "backbone.", {"": design})
        return Weights(
            title="MobileNetV1 ×0.25 of RetinaFace",
            part="backbone",
            config=design,
            state=named,
            source=source,
            sha256=sha256,
        )
    if first.startswith(("conv1.", "features.0.")):
        designs = {
            name: backbone_only(backbone, TORCHVISION_PIXELS)
            for name, backbone in TORCHVISION_BACKBONES.items()
        }
        name, named = by_order(source, state, "backbone.", designs)
        return Weights(
            title=f"torchvision's {name}",
            part="backbone",
            config=designs[name],
            state=named,
            pixels=TORCHVISION_PIXELS,
            source=source,
            sha256=sha256,
        )
    seems = looks_like(state)
    raise UserError(
        f"{source}: first tensor {first} is of no known kind of weights"
        + (f"; it looks like {seems}" if seems else "")
        + "; give a checkpoint of this program, a released one of RetinaFace, YuNet, SCRFD, "
        "DamoFD or EResFD, or an ImageNet backbone"
    )


def _with_other_files(source: str, known: NameMap, state: State) -> State:
    """The tensors of a file, and of those beside it that hold the rest of the same weights."""
    if not known.files:
        return state
    first, *others = (f".{part}.pth" for part in known.files)
    rule = f"give the one whose name ends with {first}, with {' and '.join(others)} beside it"
    title = f"{known.title} has its weights in {len(known.files)} files"
    if not source.endswith(first):
        raise UserError(f"{source}: {title}; {rule}")
    result = dict(state)
    for part, ending in zip(known.files[1:], others):
        path = Path(source.removesuffix(first) + ending)
        if not path.is_file():
            raise UserError(f"{source}: {title}, and {path} is missing; {rule}")
        result |= {f"{part}.{name}": value for name, value in _read(str(path))[0].items()}
    return result


def _read_graph(source: str, config: Detector) -> Weights:
    """The weights in an ONNX graph of SCRFD."""
    try:
        graph = read_graph(Path(source))
    except FileNotFoundError:
        raise UserError(f"{source}: no such file of weights; give an existing file") from None
    except OSError as error:
        raise cannot_read(source, error, "give another file") from error
    except (ImportError, ValueError) as error:
        raise UserError(f"{source}: cannot be read as weights ({error})") from error
    if not is_scrfd(graph):
        raise UserError(
            f"{source}: is an ONNX graph, and of these only weights of SCRFD without landmarks can "
            "be read; nas.evaluate --model scores others"
        )
    sha256, message = _sha256_of(source), ""
    for name in SCRFD_PRESETS:
        state = dict(scrfd_state(graph, blank_detector(load_preset(name)[0])))
        try:
            return _released(source, sha256, "SCRFD of InsightFace", state, config, (name,))
        except UserError as error:
            message = message or str(error)
    raise UserError(message)


def _released(
    source: str,
    sha256: str,
    title: str,
    state: State,
    config: Detector,
    presets: Sequence[str],
) -> Weights:
    """Weights with this program's names, of `config` or of one of the presets."""
    check_finite(state, source)
    designs = {name: load_preset(name)[0] for name in presets} | {"this design": config}
    name = by_name(source, state, designs)
    return Weights(
        title=f"released weights of {name} ({title})",
        part="detector",
        config=designs[name],
        state=state,
        pixels=designs[name].pixels,
        source=source,
        sha256=sha256,
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
    A design with input normalisation learns this by itself.
    """
    theirs, state = weights.pixels, weights.state
    if theirs is None or theirs == ours or weights.config.backbone.input_norm:
        return state
    order = [0, 1, 2] if theirs.order == ours.order else [2, 1, 0]  # their channel of each of ours
    mean, std = (torch.tensor(values)[order] for values in (theirs.mean, theirs.std))
    scale = (torch.tensor(ours.std) / std).view(1, 3, 1, 1)
    offset = ((torch.tensor(ours.mean) - mean) / std).view(1, 3, 1, 1)
    conv, norm = "backbone.stages.0.0.conv.weight", "backbone.stages.0.0.norm.running_mean"
    kernel = state[conv][:, order]
    return state | {conv: kernel * scale, norm: state[norm] - (kernel * offset).sum(dim=(1, 2, 3))}


def imagenet_file(config: Detector) -> Path:
    """The file of ImageNet-1k weights nearest to a design's backbone, in torch's download folder;
    missing files of torchvision are downloaded.

    Raises:
        UserError: there are none for this kind of backbone, or the file is damaged or cannot be
            downloaded.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if config.backbone.kind == "mobilenet_v1":
        path, sha256 = folder / pretrained.MOBILENET_V1_FILE, pretrained.MOBILENET_V1_SHA256
        if not path.is_file():
            raise UserError(
                f"weights: torchvision has no {IMAGENET} weights of mobilenet_v1; "
                f"put {path.name} of the RetinaFace repositories into {folder}, or "
                "give its path"
            )
        return _checked(path, sha256)
    name = pretrained.torchvision_name(config)
    if name is None:
        raise UserError(
            f"weights: {IMAGENET} has none for backbone.kind {config.backbone.kind}, "
            f"only for {', '.join(pretrained.IMAGENET_KINDS)}; give a file, or train from scratch"
        )
    import torchvision  # takes seconds

    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    path = folder / Path(url).name
    prefix = path.stem.rpartition("-")[2]  # <name>-<first 8 digits of sha256>
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except (
            OSError,
            RuntimeError,
        ) as error:  # URLError is an OSError, a wrong hash a RuntimeError
            raise UserError(
                f"weights: {IMAGENET} of {name} could not be downloaded ({error}); "
                f"download {url} elsewhere and put it into {folder}"
            ) from error
    return _checked(path, prefix)


def _checked(path: Path, prefix: str) -> Path:
    if not _sha256_of(path).startswith(prefix):
        raise UserError(
            f"{path}: is damaged, its sha256 does not begin with {prefix[:8]}; remove "
            "it and download it again"
        )
    return path


def _sha256_of(path: str | Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(source: str) -> tuple[State, Detector | None, dict | None]:
    """Tensors by name (without `module.`); from a checkpoint of this program its design, and its
    recipe and `state` in one dict."""
    try:
        content = read_tensors(Path(source))
    except FileNotFoundError:
        raise UserError(
            f"{source}: no such file of weights; give an existing file, or {IMAGENET}"
        ) from None
    except OSError as error:
        raise cannot_read(source, error, "give a file written by torch.save") from error
    except ValueError as error:
        raise UserError(
            f"{source}: cannot be read as weights ({error}); "
            "give a file written by torch.save that holds tensors only"
        ) from error
    state, design, training = content, None, None
    if isinstance(content, Mapping):
        design = content.get("detector")
        state = content.get("model", content.get("state_dict", content))
        rest = content.get("state")
        training = {"recipe": content.get("recipe")} | (rest if isinstance(rest, dict) else {})
    if not is_state_dict(state):
        raise UserError(
            f"{source}: holds no table of named tensors; give a state dict or a "
            "checkpoint with one under model or state_dict"
        )
    check_finite(state, source)
    if design is not None:
        design = read_design(design, state, source)
    return {name.removeprefix("module."): value for name, value in state.items()}, design, training


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
