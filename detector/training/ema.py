"""An exponential moving average (EMA) of the weights, evaluated and saved in their place."""

from __future__ import annotations

import copy

import torch
from torch import nn


class ModelEMA:
    """Call `update(model)` after each step; `module` then holds the average.

    Update t (from 1) keeps min(decay, t / (9 + t)) of the average, the first one nothing: early
    weights are forgotten sooner. The statistics of batch normalisation are copied. The updates are
    counted here, so that no step waits for a GPU (torch's AveragedModel counts on the device).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model)
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self._decay, self.updates / (9 + self.updates)) if self.updates > 1 else 0.0
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), 1 - decay)
        for averaged, buffer in zip(self.module.buffers(), model.buffers()):
            averaged.copy_(buffer)
