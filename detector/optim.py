"""Optimisers as detectors are trained with, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from detector.recipe import Optimizer, Recipe

WARMUP_START = 1e-3  # share of lr at the first step of the warm-up
COSINE_END = 1e-2    # share of lr at the last step of the cosine
BETA2 = 0.98         # of adamw: averages 50 steps, since a proxy has not many more


def make_optimizer(model: nn.Module, settings: Optimizer, *,
                   fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser; its weight decay spares biases and normalisation (all 1-d parameters).

    Args:
        fused: all parameters in one kernel. Not with loss scaling: torch's fused SGD has undefined
            momentum after a first step that is left out.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in weights if p.ndim > 1], "weight_decay": settings.weight_decay},
              {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if settings.kind == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, BETA2),
                                 fused=fused)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)


def lr_at(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """Learning rate of a step.

    Args:
        step: 0 for the first step of the whole training.
    """
    settings = recipe.optimizer
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total)
    if step < warmup:
        return settings.lr * (WARMUP_START + (1 - WARMUP_START) * step / warmup)
    if settings.schedule == "step":
        passed = sum(step >= round(share * total) for share in settings.milestones)
        return settings.lr * settings.gamma**passed
    done = (step - warmup) / max(total - 1 - warmup, 1)
    return settings.lr * (COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * done)) / 2)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
