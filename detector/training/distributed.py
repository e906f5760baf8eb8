"""Workers that train one detector together; what is here does nothing where there is only one."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Place(NamedTuple):
    rank: int
    """Of this worker, from 0; that one evaluates and writes."""
    workers: int


def place() -> Place:
    """Where this process stands among the workers of torch's process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return Place(0, 1)
    return Place(dist.get_rank(), dist.get_world_size())


def total(values: Tensor) -> Tensor:
    """The sum of all workers' `values`, in place; the same bits everywhere."""
    if place().workers > 1:
        dist.all_reduce(values)
    return values


@torch.no_grad()
def add_gradients(model: nn.Module) -> None:
    """Makes each gradient the sum of all workers'.

    Once a step, in one message: DistributedDataParallel would take their mean, after every
    backward pass.
    """
    if place().workers == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = total(torch.cat([g.flatten() for g in gradients]))
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(summed.view_as(gradient))
