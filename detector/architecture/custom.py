"""Parts of networks that plugins register: backbones, necks, blocks and predictors of heads.
Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

from detector.architecture.layers import Layer
from detector.base.errors import ConfigError
from detector.base.plugins import checked_new, plugin_faults
from detector.config import detector as config_names
from detector.config.backbones import BACKBONES, BackboneSpec, Published
from detector.config.detector import Backbone, Neck

if TYPE_CHECKING:
    from torch import nn

F = TypeVar("F")
Use = tuple[str, Layer, int]
"""Name of the module, its layer, pyramid level of its input (0 is the image)."""
Stages = Callable[[Backbone, int], list[list[Layer]]]
"""From a backbone and the coarsest pyramid level that is needed (1–5) to the layers of each level,
from 1 on. The last layers of a level are its blocks, row by row."""
MakeLayer = Callable[[int, int], Layer]
"""From input and output channels to the layer."""


class CustomNeck(ABC):
    """The neck of a plugin: subclass it, as a frozen dataclass, with its layers and its module."""

    @abstractmethod
    def uses(self) -> Iterator[Use]:
        """Every application of a layer; names begin with "neck."."""

    @abstractmethod
    def module(self) -> nn.Module:
        """The torch module, see `detector.network.neck.build_neck`; it makes the modules of layers
        by `detector.network.modules.build`. Import torch in here."""


MakeNeck = Callable[[Neck, Mapping[int, int]], CustomNeck]
"""From the configuration, and the channels of each of its levels in the backbone, to the neck."""

_stages: dict[str, Stages] = {}
_necks: dict[str, MakeNeck] = {}
_blocks: dict[str, MakeLayer] = {}
_predictors: dict[str, MakeLayer] = {}


def register_backbone(
    kind: str,
    *,
    short: str,
    levels: tuple[int, ...],
    stem: int,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    widening_block: Literal["first", "last"] = "first",
) -> Callable[[Stages], Stages]:
    """Decorator: a plugin's function as `backbone.kind: kind`, whose widths and depths can be
    varied as those of the built-in kinds.

    Args:
        short: its name in names of designs.
        levels: pyramid level (log2 of the stride, 1–5, ascending) of each row of blocks.
        stem, widths, depths: channels of the first convolution, and channels and blocks of each
            row, at width ×1.
        widening_block: which block of a row changes the number of channels.

    Raises:
        ConfigError: the name is taken, or the rows do not fit each other.
    """
    checked_new("backbone", kind, BACKBONES)
    if not levels or list(levels) != sorted(levels) or not set(levels) <= {1, 2, 3, 4, 5}:
        raise ConfigError(f"backbone {kind}: levels {list(levels)} must be ascending, in 1–5")
    if not len(levels) == len(widths) == len(depths):
        raise ConfigError(
            f"backbone {kind}: {len(levels)} levels, {len(widths)} widths and {len(depths)} "
            "depths; give one of each for every row of blocks"
        )
    if min(stem, *widths, *depths) < 1:
        raise ConfigError(f"backbone {kind}: stem, widths and depths must be at least 1")

    def register(stages: Stages) -> Stages:
        published = Published(short=short, stem=stem, widths=widths, depths=depths)
        BACKBONES[kind] = BackboneSpec(
            layers=kind,
            levels=levels,
            published={"basic": published},
            widening_block=widening_block,
        )
        _stages[kind] = stages
        return stages

    return register


def register_neck(kind: str) -> Callable[[MakeNeck], MakeNeck]:
    """Decorator: a plugin's neck as `neck.kind: kind`. Its levels are at most 5, and all of its
    maps have `neck.width` channels."""
    return _registration("neck", kind, _necks, config_names.NECKS)


def register_head_block(name: str) -> Callable[[MakeLayer], MakeLayer]:
    """Decorator: a plugin's layer as `head.block: name`, before the predictors."""
    return _registration("head block", name, _blocks, config_names.HEAD_BLOCKS)


def register_predictor(name: str) -> Callable[[MakeLayer], MakeLayer]:
    """Decorator: a plugin's layer as `head.predictor: name`. Its last convolution has a bias, and
    neither norm nor activation."""
    return _registration("predictor", name, _predictors, config_names.PREDICTORS)


def _registration(what: str, name: str, table: dict[str, F], known: list[str]) -> Callable[[F], F]:
    checked_new(what, name, known)

    def register(make: F) -> F:
        table[name] = make
        known.append(name)
        return make

    return register


def custom_stages(config: Backbone, top: int) -> list[list[Layer]] | None:
    """The layers of each level of a plugin's backbone up to `top`; None for built-in kinds.

    Raises:
        ConfigError: the plugin's function fails, or its layers do not fit.
    """
    if config.kind not in _stages:
        return None
    what = f"backbone.kind {config.kind}"
    with plugin_faults(what):
        layers = [list(stage) for stage in _stages[config.kind](config, top)]
        if len(layers) != top or not all(layers):
            raise ConfigError(
                f"{what}: gives layers for {sum(map(bool, layers))} levels where {top} are needed; "
                "return a list of layers for each level"
            )
        for level, width in dict(zip(config.spec.levels, config.widths)).items():
            if level <= top and (cout := layers[level - 1][-1].cout) != width:
                raise ConfigError(
                    f"{what}: level {level} ends with {cout} channels; it must have the width of "
                    f"its last row, {width}"
                )
    return layers


def custom_neck(neck: Neck, channels: Mapping[int, int]) -> CustomNeck | None:
    """A plugin's neck; None for built-in kinds. Raises ConfigError if the plugin fails."""
    if neck.kind not in _necks:
        return None
    with plugin_faults(f"neck.kind {neck.kind}"):
        return _necks[neck.kind](neck, channels)


def custom_block(name: str, cin: int, cout: int) -> Layer | None:
    """As `custom_neck`, of a block of the head."""
    return _custom_layer(f"head.block {name}", _blocks.get(name), cin, cout)


def custom_predictor(name: str, cin: int, cout: int) -> Layer | None:
    """As `custom_neck`, of a predictor."""
    return _custom_layer(f"head.predictor {name}", _predictors.get(name), cin, cout)


def _custom_layer(what: str, make: MakeLayer | None, cin: int, cout: int) -> Layer | None:
    if make is None:
        return None
    with plugin_faults(what):
        layer = make(cin, cout)
        if layer.cout != cout:
            raise ConfigError(f"{what}: has {layer.cout} output channels where {cout} are needed")
        return layer
