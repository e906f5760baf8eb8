"""The layers of any backbone, by the file that its kind names. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from detector.architecture.custom import custom_stages
from detector.architecture.layers import Chain, Layer, Norm
from detector.config.detector import Backbone


def stages(config: Backbone, top: int) -> dict[int, Chain]:
    """The layers from the image up to pyramid level `top`, by the level of their output.

    The input of each is the output of the one before, of the first the image (3 channels, level 0).
    A level that a larger stride skips has no layers, and is missing.

    Raises:
        ConfigError: a plugin's function fails, or returns something else.
    """
    layers = custom_stages(config, top)
    if layers is None:
        module = import_module(f"detector.architecture.backbones.{config.spec.layers}")
        layers = cast(list[list[Layer]], module.stages(config, top))
    if config.input_norm:
        next(filter(None, layers)).insert(0, Norm(3))
    return {level: Chain(tuple(stage)) for level, stage in enumerate(layers, start=1) if stage}
