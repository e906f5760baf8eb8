"""Heads: predict class, box and landmarks of each anchor of each cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detector.architecture.plan import HeadPlan
from detector.boxes.coding import DISTANCE
from detector.network.modules import build

FIRST_DISTANCE = 1.0
"""Of all four sides before training, in strides, where boxes are told by distances: a box without
area has no overlap to improve."""

FACE_PRIOR = 0.01
"""Face probability of every anchor before training (focal loss paper, Lin et al. 2017): the many
background anchors then do not swamp the first steps."""


class Heads(nn.Module):
    """See `HeadPlan` for what is built."""

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
        """Small weights in the last convolutions, a bias that gives every anchor `FACE_PRIOR` (in
        the class, or in the objectness where there is one), and `FIRST_DISTANCE`. By `torch` the
        weights stay as they are, and so do the biases of a softmax (RetinaFace's)."""
        is_torch = initialization == "torch"
        for predictor in self.plan.predictors:
            is_distance = predictor.name == "box_deltas" and self.plan.coding == DISTANCE
            for unit in getattr(self, predictor.name):
                last = _last_conv(unit)
                if not is_torch:
                    nn.init.normal_(last.weight, std=0.01, generator=generator)
                if is_distance or not is_torch:
                    nn.init.constant_(last.bias, FIRST_DISTANCE if is_distance else 0.0)
        if is_torch and self.plan.predictors[0].size == 2:
            return
        log_odds = math.log(FACE_PRIOR / (1 - FACE_PRIOR))
        names = [predictor.name for predictor in self.plan.predictors]
        for unit in getattr(self, "objectness" if "objectness" in names else "class_logits"):
            with torch.no_grad():
                bias = _last_conv(unit).bias
                if self.plan.predictors[0].size == 2:  # softmax
                    logits = bias.view(-1, 2)  # (background, face) of each anchor
                    logits[:, 0], logits[:, 1] = -log_odds / 2, log_odds / 2
                else:
                    bias.fill_(log_odds)


def _last_conv(module: nn.Module) -> nn.Conv2d:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)][-1]
