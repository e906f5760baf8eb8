"""Heads: class, box and landmarks of each anchor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detector.architecture.plan import HeadPlan
from detector.boxes.coding import DISTANCE
from detector.boxes.logits import SOFTMAX_CHANNELS, foreground_name, prior_bias
from detector.network.modules import build

FIRST_DISTANCE = 1.0
"""Initial distance to all four sides, in strides, with coding by distances: a box without area has
no overlap to improve."""

FACE_PRIOR = 0.01
"""Initial face probability of every anchor (focal loss paper, Lin et al. 2017): otherwise the many
negative anchors dominate the first steps."""


class Heads(nn.Module):
    """Built as `HeadPlan` describes."""

    def __init__(self, plan: HeadPlan):
        super().__init__()
        self.plan = plan
        self.towers = nn.ModuleList(map(build, plan.towers))
        for predictor in plan.predictors:
            self.add_module(predictor.name, nn.ModuleList(map(build, predictor.layers)))
        self.scales = nn.ModuleList(map(build, plan.scales))

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Predictions [B, A, size] by name; A runs level by level (finest first), row by row over
        the cells, and over the anchors of a cell innermost."""
        if self.towers:
            maps = [self._at(self.towers, level)(x) for level, x in enumerate(maps)]
        outputs = {}
        for predictor in self.plan.predictors:
            levels = [
                self._at(getattr(self, predictor.name), level)(x) for level, x in enumerate(maps)
            ]
            if predictor.name == "box_deltas" and self.scales:
                levels = [scale(x) for scale, x in zip(self.scales, levels)]
            outputs[predictor.name] = torch.cat(
                [
                    x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, predictor.size))
                    for x in levels
                ],
                dim=1,
            )
        return outputs

    def _at(self, modules: nn.ModuleList, level_index: int) -> nn.Module:
        return modules[self.plan.index(level_index, modules)]

    def initialise(self, generator: torch.Generator, initialization: str = "he") -> None:
        """Set the last convolutions to small weights, and to biases that give every anchor
        `FACE_PRIOR` (of the objectness if predicted, else of the class) and `FIRST_DISTANCE`. With
        `torch` the weights are left as they are, and so are the biases of a softmax, as in
        RetinaFace's own code."""
        is_torch = initialization == "torch"
        for predictor in self.plan.predictors:
            is_distance = predictor.name == "box_deltas" and self.plan.coding == DISTANCE
            for module in getattr(self, predictor.name):
                last = _last_conv(module)
                if not is_torch:
                    nn.init.normal_(last.weight, std=0.01, generator=generator)
                if is_distance or not is_torch:
                    nn.init.constant_(_bias(last), FIRST_DISTANCE if is_distance else 0.0)
        sizes = {predictor.name: predictor.size for predictor in self.plan.predictors}
        name = foreground_name(sizes)
        if is_torch and sizes[name] == SOFTMAX_CHANNELS:
            return
        log_odds = math.log(FACE_PRIOR / (1 - FACE_PRIOR))
        prior = torch.tensor(prior_bias(log_odds, sizes[name]))
        for module in getattr(self, name):
            with torch.no_grad():
                _bias(_last_conv(module)).view(-1, sizes[name]).copy_(prior)


def _last_conv(module: nn.Module) -> nn.Conv2d:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)][-1]


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None, "the last convolution of a predictor has a bias"
    return conv.bias
