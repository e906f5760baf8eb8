"""Backbones: each is a table and a loop that writes its layers down. Imports no torch."""

from __future__ import annotations

from detector.architecture.backbones import mobilenet_v1, mobilenet_v2, resnet, yunet
from detector.architecture.layers import Chain, Norm
from detector.config.detector import Backbone

_STAGES = {
    "mobilenet_v1": mobilenet_v1.stages,
    "mobilenet_v2": mobilenet_v2.stages,
    "mobilenet_v2_s16": mobilenet_v2.stages,
    "resnet": resnet.stages,
    "yunet": yunet.stages,
}


def stages(config: Backbone, top: int) -> tuple[Chain, ...]:
    """The layers from the image up to pyramid level `top` (1–5).

    Stage i halves the resolution once: its input is at level i (0 is the image, 3 channels), its
    output is the feature map of level i + 1, with `stages[i].cout` channels.
    """
    layers = _STAGES[config.kind](config, top)
    if config.input_norm:
        layers[0].insert(0, Norm(3))
    return tuple(Chain(tuple(stage)) for stage in layers)
