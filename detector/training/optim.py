"""Optimisers (SGD, AdamW), and the learning rate schedule: warm-up, then steps or a cosine."""

from __future__ import annotations

import math

import torch
from torch import nn

from detector.config.recipe import Optimizer, Recipe

WARMUP_START = 1e-3  # share of lr at the first step of the warm-up
COSINE_END = 1e-2  # share of lr at the last step of the cosine
BETA2 = 0.98  # of AdamW: averages over 50 steps, since a proxy has few more


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser; weight decay falls on biases and normalisation (all 1-d parameters) only with
    `settings.decay_norms`.

    One kernel updates all parameters. On a GPU the learning rate is a tensor on the device, so that
    a CUDA graph of the step can be replayed at another rate.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": settings.weight_decay},
        {
            "params": [p for p in weights if p.ndim <= 1],
            "weight_decay": settings.weight_decay if settings.decay_norms else 0.0,
        },
    ]
    groups = [group for group in groups if group["params"]]
    on_gpu = weights[0].is_cuda
    optimizer: torch.optim.Optimizer
    if settings.kind == "adamw":
        optimizer = torch.optim.AdamW(
            groups, lr=settings.lr, betas=(settings.momentum, BETA2), fused=True, capturable=on_gpu
        )
    else:
        optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
        # Zeros give the same first step. Without them torch leaves the momentum undefined if loss
        # scaling skips that step.
        for weight in weights if settings.momentum else ():
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    if on_gpu:
        lr = torch.tensor(settings.lr, device=weights[0].device)
        for group in optimizer.param_groups:
            group["lr"] = lr
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict:
    """The state as checkpoints store it, independent of the device."""
    state = optimizer.state_dict()
    groups = [
        group | {"lr": float(group["lr"]), "capturable": False}
        if "capturable" in group
        else group | {"lr": float(group["lr"])}
        for group in state["param_groups"]
    ]
    return state | {"param_groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Restores what `optimizer_state` returned, on the device of this optimiser."""
    own = [
        {key: group[key] for key in ("lr", "fused", "capturable") if key in group}
        for group in optimizer.param_groups
    ]
    groups = [
        stored | device_keys for stored, device_keys in zip(state["param_groups"], own, strict=True)
    ]
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
    progress = (step - warmup) / max(total - 1 - warmup, 1)
    return settings.lr * (COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * progress)) / 2)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
