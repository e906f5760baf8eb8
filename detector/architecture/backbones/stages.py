"""The layers of any backbone, by the file that its kind names. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from detector.architecture.custom import custom_stages
from detector.architecture.layers import Chain, Layer, Norm
from detector.config.detector import Backbone


def stages(config: Backbone, top: int) -> tuple[Chain, ...]:
    """The layers from the image up to pyramid level `top` (1–5).

    Stage i has a stride of 2: its input is at level i (0 is the image, 3 channels), its output is
    the feature map of level i + 1, with `stages[i].cout` channels.

    Raises:
        ConfigError: a plugin's function fails, or returns something else.
    """
    layers = custom_stages(config, top)
    if layers is None:
        module = import_module(f"detector.architecture.backbones.{config.spec.layers}")
        layers = cast(list[list[Layer]], module.stages(config, top))
    if config.input_norm:
        layers[0].insert(0, Norm(3))
    return tuple(Chain(tuple(stage)) for stage in layers)
