"""What each trial gets of the machines, and how many train at once. Light to import."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detector.base.errors import UserError

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""One of them is there where Linux has a GPU that torch can use: NVIDIA's, AMD's, one of WSL's."""
TRIAL_GPU_GB = 6.0
"""GPU memory for each trial, in 10⁹ bytes: its CUDA context, the network and a batch of a proxy.
One that needs more runs out of it and is tried again with fewer images at a time."""
UNKNOWN_GPU_GB = 16.0
"""Memory that a GPU is taken to have where nobody tells: on another machine of a Ray cluster."""
MOST_PER_GPU = 8
"""Trials on one GPU, at most: its kernels take turns, so more of them gain nothing."""
MOST_CPUS = 4
"""Cores of a trial on a GPU, unless told otherwise: they prepare its batches."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine that trains."""

    cpus: float
    """Cores."""
    gpus: float = 0.0
    gpu_gb: float = UNKNOWN_GPU_GB
    """Memory of each GPU, in 10⁹ bytes; of the smallest, where they differ."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    concurrency: int
    """Trials at once."""
    cpus: int
    """Cores of each, and so threads."""
    gpus: float
    """Of each; 0: trained on the CPU."""
    stopwatch: bool = False
    """One more core (and share of a GPU) is set apart to measure latency."""

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def cores(self) -> int:
        """That the search uses in all."""
        return self.concurrency * self.cpus + self.stopwatch


def this_machine(device: str = "auto") -> Node:
    """What this machine has; its GPUs only where `device` does not rule them out.

    Importing torch takes seconds, so it is not asked where there is no driver of any GPU.
    """
    node = Node(cpus=len(os.sched_getaffinity(0)))
    driver = sys.platform != "linux" or any(Path(driver).exists() for driver in GPU_DRIVERS)
    if device == "cpu" or not driver:
        return node
    import torch

    memories = [
        torch.cuda.get_device_properties(gpu).total_memory / 1e9
        for gpu in range(torch.cuda.device_count())
    ]
    return replace(node, gpus=len(memories), gpu_gb=min(memories)) if memories else node


def shares_of(
    nodes: Sequence[Node],
    *,
    device: str = "auto",
    cpus: int | None = None,
    gpus: float | None = None,
    concurrency: int | None = None,
    stopwatch: bool = False,
) -> Shares:
    """The shares that flags ask for, and sensible ones where they say nothing: on GPUs as many
    trials at once as their memory and the cores allow (see `_crowd`), and the cores shared out
    among them; else a core for each trial, as many at once as all nodes have room for.

    With a stopwatch one core stays free for it where there is more than one, and a share of a GPU.
    So that few others disturb it, that and the trials' is by default a whole GPU (half of it where
    there is one alone).

    Args:
        device: auto (GPUs where there are any), cpu or cuda.

    Raises:
        UserError: no node has that much.
    """
    most = max(node.gpus for node in nodes) if device != "cpu" else 0.0
    where = "this machine" if len(nodes) == 1 else "no machine"
    if device == "cuda" and not most:
        raise UserError("--device cuda: no CUDA device is seen here; use --device cpu or auto")
    if cpus is not None and cpus < 1:
        raise UserError(f"--cpus-per-trial {cpus}: must be at least 1")
    if concurrency is not None and concurrency < 1:
        raise UserError(f"--concurrency {concurrency}: must be at least 1")
    share = gpus
    if share is None:
        share = _default_share(nodes, cpus or 1, concurrency, stopwatch) if most else 0.0
    if not 0 <= share <= most:
        rule = (
            f"{where} has {most:g}; give at most that"
            if where == "this machine"
            else (f"{where} has more than {most:g}; give at most that")
        )
        raise UserError(
            f"--gpus-per-trial {share:g}: {rule}"
            if share > 0
            else f"--gpus-per-trial {share:g}: must not be negative"
        )
    if len(nodes) > 1 and cpus is not None and cpus > max(node.cpus for node in nodes):
        raise UserError(
            f"--cpus-per-trial {cpus}: {where} has more than "
            f"{max(node.cpus for node in nodes):g} cores; give at most that"
        )
    cpus = cpus or (_default_cpus(nodes, share, concurrency, stopwatch) if share else 1)
    if concurrency is None:
        rooms = [_room(node, cpus, share) for node in nodes]
        if stopwatch:  # where it costs the fewest trials
            rooms[0] -= min(
                _room(node, cpus, share)
                - _room(Node(cpus=node.cpus - 1, gpus=node.gpus - share), cpus, share)
                for node in nodes
            )
        concurrency = max(1, sum(rooms))
    return Shares(concurrency=concurrency, cpus=cpus, gpus=share, stopwatch=stopwatch)


def _default_share(
    nodes: Sequence[Node], cpus: int, concurrency: int | None, stopwatch: bool
) -> float:
    """Of a GPU for each trial, where there are any."""
    gpus, most = sum(node.gpus for node in nodes), max(node.gpus for node in nodes)
    if stopwatch:
        return min(most, 0.5 if gpus <= 1 else 1.0)
    crowd = min(_crowd(node, cpus) for node in nodes if node.gpus)
    if concurrency is not None:
        crowd = min(crowd, math.ceil(concurrency / gpus))
    return min(most, gpu_share(crowd))


def gpu_share(crowd: int) -> float:
    """What each of so many gets of a GPU; rounded down, as Ray counts in ten-thousandths."""
    return math.floor(1e4 / crowd) / 1e4


def _crowd(node: Node, cpus: int) -> int:
    """Trials at once on one GPU of a node: as many as its memory, the node's cores and
    MOST_PER_GPU allow, but one at least."""
    return max(
        1, min(int(node.gpu_gb / TRIAL_GPU_GB), int(node.cpus / node.gpus / cpus), MOST_PER_GPU)
    )


def _default_cpus(
    nodes: Sequence[Node], share: float, concurrency: int | None, stopwatch: bool
) -> int:
    """Cores for each trial on GPUs: those of a node among the trials that it has room for."""

    def fair(node: Node) -> int:
        trials = max(_room(node, 1, share), 1)
        if concurrency is not None:
            trials = min(trials, math.ceil(concurrency * node.gpus / gpus))
        return int((node.cpus - stopwatch) // trials)

    gpus = sum(node.gpus for node in nodes)
    return min(max(1, min(fair(node) for node in nodes if node.gpus)), MOST_CPUS)


def _room(node: Node, cpus: int, share: float) -> int:
    """Trials at once."""
    room = max(int(node.cpus // cpus), 0)
    return min(room, max(int(node.gpus / share + 1e-9), 0)) if share else room
