"""Heads: 1×1 convolutions that predict class, box and landmarks of each anchor of each cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detector.modules import build
from detector.plan import HeadPlan

FACE_PRIOR = 0.01
"""Face probability of every anchor before training (focal loss paper, Lin et al. 2017): the many
background anchors then do not swamp the first steps."""


class Heads(nn.Module):
    def __init__(self, plan: HeadPlan):
        super().__init__()
        self.plan = plan
        for predictor in plan.predictors:
            self.add_module(predictor.name, nn.ModuleList(map(build, predictor.convs)))

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Predictions [B, A, size] by name; A runs level by level (finest first), row by row over
        the cells, and over the anchors of a cell innermost."""
        outputs = {}
        for predictor in self.plan.predictors:
            levels = [conv(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, predictor.size))
                      for conv, x in zip(getattr(self, predictor.name), maps)]
            outputs[predictor.name] = torch.cat(levels, dim=1)
        return outputs

    def initialise(self, generator: torch.Generator) -> None:
        """Small weights, and a class bias that gives every anchor `FACE_PRIOR`."""
        half_log_odds = math.log(FACE_PRIOR / (1 - FACE_PRIOR)) / 2
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01, generator=generator)
                nn.init.zeros_(module.bias)
        for unit in self.class_logits:
            with torch.no_grad():
                logits = unit.conv.bias.view(-1, 2)  # (background, face) of each anchor
                logits[:, 0], logits[:, 1] = -half_log_odds, half_log_odds
