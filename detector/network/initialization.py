"""Initial weights from scratch, by the rules that `Recipe.initialization` names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor, nn

from detector.boxes.coding import DISTANCE
from detector.boxes.logits import SOFTMAX_CHANNELS, foreground_name, prior_bias
from detector.network.heads import Heads
from detector.network.modules import FUSION_WEIGHT, FusionUnit, ResidualUnit, ScaleUnit

FACE_PRIOR = 0.01
"""Initial face probability of every anchor (focal loss paper, Lin et al. 2017): otherwise the many
negative anchors dominate the first steps."""
FIRST_DISTANCE = 1.0
"""Initial distance to all four sides, in strides, with coding by distances: a box without area has
no overlap to improve."""
NORMS = (nn.BatchNorm2d, nn.GroupNorm)
SCRFD_STD = 0.01
YUNET_BIAS = 0.02
YUNET_STD = 0.01


def initialize(
    model: nn.Module, heads: Heads, generator: Generator, initialization: str = "he"
) -> None:
    """Initialises all weights of a detector.

    Normalisation and scales begin with ones, without shift, and sums with equal weights, by every
    rule.

    Args:
        model: the detector: the modules backbone, neck, context and heads.
        heads: those of `model`.
        initialization: a name of `RULES`.
    """
    for module in model.modules():
        if isinstance(module, NORMS):
            module.reset_parameters()
        elif isinstance(module, ScaleUnit):
            nn.init.ones_(module.factor)
        elif isinstance(module, FusionUnit):
            nn.init.constant_(module.weight, FUSION_WEIGHT)
    RULES[initialization](model, heads, generator)


def _he(model: nn.Module, heads: Heads, generator: Generator) -> None:
    """Convolutions normal by their fan-in, also depthwise ones, without bias (He et al. 2015); the
    last ones of the predictors small, with `FACE_PRIOR` and `FIRST_DISTANCE`."""
    for conv in _convs(model):
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
        _fill_bias(conv, 0.0)
    for name, last in _predictors(heads):
        nn.init.normal_(last.weight, std=0.01, generator=generator)
        is_distance = name == "box_deltas" and heads.plan.coding == DISTANCE
        _fill_bias(last, FIRST_DISTANCE if is_distance else 0.0)
    _set_prior(heads)


def _torch(model: nn.Module, heads: Heads, generator: Generator) -> None:
    """Convolutions and their biases uniform within ±1/√fan-in, as by `nn.Conv2d.reset_parameters`.
    So are the biases of a softmax, as in RetinaFace's own code; other heads have `FACE_PRIOR`, and
    `FIRST_DISTANCE`."""
    for conv in _convs(model):
        bound = conv.weight[0].numel() ** -0.5
        for parameter in conv.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
    for name, last in _predictors(heads):
        if name == "box_deltas" and heads.plan.coding == DISTANCE:
            _fill_bias(last, FIRST_DISTANCE)
    sizes = _sizes(heads)
    if sizes[foreground_name(sizes)] != SOFTMAX_CHANNELS:
        _set_prior(heads)


def _scrfd(model: nn.Module, heads: Heads, generator: Generator) -> None:
    """As in SCRFD's own code (deepinsight/insightface, detection/scrfd): convolutions of the
    backbone normal by their fan-out, and the last normalisation of a residual block 0; neck Xavier
    uniform (Glorot & Bengio 2010); head normal with `SCRFD_STD` and `FACE_PRIOR`."""
    for part, module in model.named_children():
        for conv in _convs(module):
            if part == "backbone":
                nn.init.kaiming_normal_(
                    conv.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
            elif part == "heads":
                nn.init.normal_(conv.weight, std=SCRFD_STD, generator=generator)
            else:
                nn.init.xavier_uniform_(conv.weight, generator=generator)
            _fill_bias(conv, 0.0)
        for block in module.modules():
            if isinstance(block, ResidualUnit):
                last = [m for m in block.body.modules() if isinstance(m, NORMS)][-1]
                nn.init.zeros_(last.weight)
    _set_prior(heads)


def _yunet(model: nn.Module, heads: Heads, generator: Generator) -> None:
    """As in YuNet's own code (ShiqiYu/libfacedetection.train): convolutions with a bias Xavier
    normal, the bias `YUNET_BIAS`, also in the predictors; those without, normal with `YUNET_STD`.
    """
    for conv in _convs(model):
        if conv.bias is None:
            nn.init.normal_(conv.weight, std=YUNET_STD, generator=generator)
        else:
            nn.init.xavier_normal_(conv.weight, generator=generator)
            _fill_bias(conv, YUNET_BIAS)


RULES: dict[str, Callable[[nn.Module, Heads, Generator], None]] = {
    "he": _he,
    "torch": _torch,
    "scrfd": _scrfd,
    "yunet": _yunet,
}
"""By the names that recipes give them (INITIALIZATIONS of detector/config/recipe.py)."""


def _convs(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))


def _predictors(heads: Heads) -> Iterator[tuple[str, nn.Conv2d]]:
    """The last convolutions, with the names of their outputs."""
    for predictor in heads.plan.predictors:
        for module in getattr(heads, predictor.name):
            yield predictor.name, list(_convs(module))[-1]


def _sizes(heads: Heads) -> dict[str, int]:
    """Values per anchor of each output."""
    return {predictor.name: predictor.size for predictor in heads.plan.predictors}


def _set_prior(heads: Heads) -> None:
    """Biases that give every anchor `FACE_PRIOR`, of the objectness if predicted, else of the
    class."""
    sizes = _sizes(heads)
    foreground = foreground_name(sizes)
    log_odds = math.log(FACE_PRIOR / (1 - FACE_PRIOR))
    prior = prior_bias(log_odds, sizes[foreground])
    for predictor in heads.plan.predictors:
        if predictor.name != foreground:
            continue
        for level, module in enumerate(getattr(heads, foreground)):
            values = _bias(list(_convs(module))[-1]).view(-1, predictor.computed(level))
            with torch.no_grad():
                values[:, :-1], values[:, -1] = prior[0], prior[-1]  # each of several backgrounds


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None, "the last convolution of a predictor has a bias"
    return conv.bias


def _fill_bias(conv: nn.Conv2d, value: float) -> None:
    if conv.bias is not None:
        nn.init.constant_(conv.bias, value)
