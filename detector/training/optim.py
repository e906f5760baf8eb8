"""Optimisers as detectors are trained with, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from detector.config.recipe import Optimizer, Recipe

WARMUP_START = 1e-3  # share of lr at the first step of the warm-up
COSINE_END = 1e-2  # share of lr at the last step of the cosine
BETA2 = 0.98  # of adamw: averages 50 steps, since a proxy has not many more


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser; its weight decay spares biases and normalisation (all 1-d parameters).

    All parameters are updated in one kernel. On a GPU the rate is a tensor there, so that a graph
    of the step can be replayed at another rate.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    on_gpu = weights[0].is_cuda
    if settings.kind == "adamw":
        optimizer = torch.optim.AdamW(
            groups, lr=settings.lr, betas=(settings.momentum, BETA2), fused=True, capturable=on_gpu
        )
    else:
        optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
        # From zeros the first step is the same; without, torch leaves the momentum undefined where
        # loss scaling leaves that step out.
        for weight in weights if settings.momentum else ():
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    if on_gpu:
        lr = torch.tensor(settings.lr, device=weights[0].device)
        for group in optimizer.param_groups:
            group["lr"] = lr
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict:
    """Its state as a checkpoint keeps it: the same whatever device it is on."""
    state = optimizer.state_dict()
    groups = [
        group | {"lr": float(group["lr"]), "capturable": False}
        if "capturable" in group
        else group | {"lr": float(group["lr"])}
        for group in state["param_groups"]
    ]
    return state | {"param_groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Go on from what `optimizer_state` gave, on this optimiser's own device."""
    kept = [
        {key: group[key] for key in ("lr", "fused", "capturable") if key in group}
        for group in optimizer.param_groups
    ]
    groups = [group | own for group, own in zip(state["param_groups"], kept, strict=True)]
    optimizer.load_state_dict(state | {"param_groups": groups})


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
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
