"""A running average of the weights, which is what an EMA training evaluates and saves."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Call its `update_parameters(model)` after each step; `module` then has the average.

    Update t (from 1) keeps min(decay, t / (9 + t)) of the average, nothing at the first: early
    weights are forgotten sooner. Batch normalisation's statistics are the model's own.
    """
    @torch.no_grad()
    def follow(average: list[torch.Tensor], weights: list[torch.Tensor],
               updates: torch.Tensor | int) -> None:
        update = int(updates) + 1
        torch._foreach_lerp_(average, weights, 1 - min(decay, update / (9 + update)))

    return AveragedModel(model, multi_avg_fn=follow)
