"""Workers that train one detector together (data parallelism); without effect for a single one."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Worker(NamedTuple):
    rank: int
    """From 0; worker 0 evaluates and writes files."""
    world_size: int


def this_worker() -> Worker:
    """The rank of this process in torch's process group; of a single worker without a group."""
    if not (dist.is_available() and dist.is_initialized()):
        return Worker(0, 1)
    return Worker(dist.get_rank(), dist.get_world_size())


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of all workers' `values`, in place; the same bits everywhere."""
    if this_worker().world_size > 1:
        dist.all_reduce(values)
    return values


@torch.no_grad()
def all_reduce_gradients(model: nn.Module) -> None:
    """Replaces each gradient by the sum over all workers.

    Once a step, in one message: DistributedDataParallel would average them after every backward
    pass.
    """
    if this_worker().world_size == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = all_reduce_sum(torch.cat([g.flatten() for g in gradients]))
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(summed.view_as(gradient))
