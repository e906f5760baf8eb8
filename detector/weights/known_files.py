"""The kinds of weight files that are known, one reader each: `KNOWN`.

Other programs name their tensors differently. RetinaFace and torchvision list them in the same
order (stem to head, finest level first), so they are matched by order, and each pair is checked by
role and shape; those of YuNet, SCRFD, DamoFD and EResFD are renamed (`name_maps`), or read from a
graph of SCRFD.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.base.errors import ConfigError, UserError
from detector.base.files import cannot_read, sha256_of
from detector.config.detector import Detector, Pixels, arch_hash
from detector.config.presets import load_preset
from detector.network.model import blank_detector
from detector.weights.checkpoint import check_finite
from detector.weights.matching import by_name, by_order, check_names
from detector.weights.name_maps import SCRFD_PRESETS, NameMap, name_map_of
from detector.weights.onnx_weights import is_scrfd, read_graph, scrfd_state
from detector.weights.pretrained import (
    MOBILENET_V1_025,
    RELEASED,
    TORCHVISION_BACKBONES,
    TORCHVISION_PIXELS,
    backbone_only,
)
from detector.weights.tensor_file import State, TensorFile

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
    sha256: str
    """Of the file; of several that belong together, of the one that was named."""
    title: str
    part: str
    """detector or backbone."""
    config: Detector
    """Their design; for part backbone only its backbone matters."""
    state: State
    """State dict of that part of `build_detector(config)`."""
    training: dict | None = None
    """`recipe` and `state` of a checkpoint of this program; None for other files."""
    pixels: Pixels | None = None
    """The input that the first convolution expects; None if unknown."""


Reader = Callable[[TensorFile, Detector], Weights | None]
"""The weights in a file, None if it is of another kind; takes the design to use them for.

Raises UserError: it is of this kind, but of no known design (with the first difference).
"""


def _checkpoint(file: TensorFile, config: Detector) -> Weights | None:
    """Of this program."""
    if file.design is None:
        return None
    check_names(file.source, file.state, file.design)
    return Weights(
        source=file.source,
        sha256=file.sha256,
        title=f"a checkpoint of design {arch_hash(file.design)}",
        part="detector",
        config=file.design,
        state=file.state,
        training=file.training,
        pixels=file.design.pixels,
    )


def _tensors_alone(file: TensorFile, config: Detector) -> Weights | None:
    """With this program's names, but without a design: they must fit the given one."""
    if not file.first.startswith("backbone.stages."):
        return None
    check_names(file.source, file.state, config)
    return Weights(
        source=file.source,
        sha256=file.sha256,
        title="tensors with this program's names",
        part="detector",
        config=config,
        state=file.state,
        pixels=config.pixels,
    )


def _renamed(file: TensorFile, config: Detector) -> Weights | None:
    """YuNet's, SCRFD's, DamoFD's and EResFD's, by the names of their authors' code."""
    known = name_map_of(file.state)
    if known is None:
        return None
    try:
        state = known.translate(_with_other_files(file, known))
    except ConfigError as error:
        raise UserError(f"{file.source}: weights of another design: {error}") from error
    return _released(file.source, file.sha256, known.title, state, config, known.presets)


def _retinaface(file: TensorFile, config: Detector) -> Weights | None:
    """Of RetinaFace's repositories and of ternaus/retinaface."""
    if not file.first.startswith(("body.", f"{LIGHTNING}body.")):
        return None
    by_ternaus = file.first.startswith(LIGHTNING) or file.sha256.startswith(TERNAUS_SHA256)
    state = {name.removeprefix(LIGHTNING): value for name, value in file.state.items()}
    designs = {"this design": config} | {name: load_preset(name)[0] for name in RELEASED}
    name, named = by_order(file.source, state, "", designs)
    return Weights(
        source=file.source,
        sha256=file.sha256,
        title=f"released RetinaFace weights of {name}",
        part="detector",
        config=designs[name],
        state=named,
        pixels=TORCHVISION_PIXELS if by_ternaus else designs[name].pixels,
    )


def _mobilenet_v1(file: TensorFile, config: Detector) -> Weights | None:
    """RetinaFace's ImageNet backbone ×0.25."""
    if not file.first.startswith("stage1."):
        return None
    design = backbone_only(MOBILENET_V1_025)
    _, named = by_order(file.source, file.state, "backbone.", {"": design})
    return Weights(
        source=file.source,
        sha256=file.sha256,
        title="MobileNetV1 ×0.25 of RetinaFace",
        part="backbone",
        config=design,
        state=named,
    )


def _torchvision(file: TensorFile, config: Detector) -> Weights | None:
    """Its ResNets and MobileNetV2, trained on ImageNet."""
    if not file.first.startswith(("conv1.", "features.0.")):
        return None
    designs = {
        name: backbone_only(backbone, TORCHVISION_PIXELS)
        for name, backbone in TORCHVISION_BACKBONES.items()
    }
    name, named = by_order(file.source, file.state, "backbone.", designs)
    return Weights(
        source=file.source,
        sha256=file.sha256,
        title=f"torchvision's {name}",
        part="backbone",
        config=designs[name],
        state=named,
        pixels=TORCHVISION_PIXELS,
    )


KNOWN: tuple[Reader, ...] = (
    _checkpoint,
    _tensors_alone,
    _renamed,  # before torchvision: EResFD's first tensor is a conv1, too
    _retinaface,
    _mobilenet_v1,
    _torchvision,
)
"""Tried in this order."""


def graph_weights(source: str, config: Detector) -> Weights:
    """The weights in an ONNX graph of SCRFD.

    Raises:
        UserError: it cannot be read, or is none of SCRFD's presets.
    """
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
    sha256, message = sha256_of(source), ""
    for name in SCRFD_PRESETS:
        state = dict(scrfd_state(graph, blank_detector(load_preset(name)[0])))
        try:
            return _released(source, sha256, "SCRFD of InsightFace", state, config, (name,))
        except UserError as error:
            message = message or str(error)
    raise UserError(message)


def _with_other_files(file: TensorFile, known: NameMap) -> State:
    """The tensors of a file, and of those beside it that hold the rest of the same weights."""
    if not known.files:
        return file.state
    source = file.source
    first, *others = known.endings
    rule = f"give the one whose name ends with {first}, with {' and '.join(others)} beside it"
    title = f"{known.title} has its weights in {len(known.files)} files"
    if not source.endswith(first):
        raise UserError(f"{source}: {title}; {rule}")
    result = dict(file.state)
    for part, ending in zip(known.files[1:], others):
        path = Path(source.removesuffix(first) + ending)
        if not path.is_file():
            raise UserError(f"{source}: {title}, and {path} is missing; {rule}")
        result |= {
            f"{part}.{name}": value for name, value in TensorFile.read(str(path)).state.items()
        }
    return result


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
