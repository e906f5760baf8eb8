"""A running average of the weights, which is what an EMA training evaluates and saves."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Call its `update(model)` after each step; `module` then has the average.

    Update t (from 1) keeps min(decay, t / (9 + t)) of the average, nothing at the first: early
    weights are forgotten sooner. Batch normalisation's statistics are the model's own. Counts by
    itself, so that no step waits for a GPU (torch's AveragedModel keeps its count there).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model)
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        keep = min(self._decay, self.updates / (9 + self.updates)) if self.updates > 1 else 0.0
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), 1 - keep)
        for own, buffer in zip(self.module.buffers(), model.buffers()):
            own.copy_(buffer)
