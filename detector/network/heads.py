"""Heads: class, box and landmarks of each anchor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.architecture.plan import HeadPlan
from detector.network.modules import build


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
            by_anchor = [
                x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, predictor.computed(level)))
                for level, x in enumerate(levels)
            ]
            if predictor.backgrounds > 1:
                by_anchor[0] = _largest_background(by_anchor[0])
            outputs[predictor.name] = torch.cat(by_anchor, dim=1)
        return outputs

    def _at(self, modules: nn.ModuleList, level_index: int) -> nn.Module:
        return modules[self.plan.index(level_index, modules)]


def _largest_background(logits: Tensor) -> Tensor:
    """[B, A, backgrounds + 1], the face last, to [B, A, 2]: S3FD's max-out (Zhang et al. 2017)."""
    return torch.cat([logits[..., :-1].amax(dim=-1, keepdim=True), logits[..., -1:]], dim=-1)
