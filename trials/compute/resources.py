"""What each trial gets of the machines, and how many train at once. No heavy imports."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detector.base.errors import UserError

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Linux has one of these where torch can use a GPU: of NVIDIA, of AMD, of WSL."""
TRIAL_GPU_GB = 6.0
"""GPU memory for each trial, in 10⁹ bytes: its CUDA context, the network and a batch of a proxy.
One that runs out of memory is retried with fewer images at a time."""
UNKNOWN_GPU_GB = 16.0
"""Assumed memory of a GPU where it is unknown: on another machine of a Ray cluster."""
MAX_TRIALS_PER_GPU = 8
"""Kernels of one GPU take turns, so more trials at once gain nothing."""
MAX_CPUS_PER_TRIAL = 4
"""Default limit of a trial's cores on a GPU; they prepare its batches."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine that trains."""

    cpus: float
    """Cores."""
    gpus: float = 0.0
    gpu_gb: float = UNKNOWN_GPU_GB
    """Memory of each GPU, in 10⁹ bytes; of the smallest if they differ."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    concurrency: int
    """Trials at once."""
    cpus: int
    """Cores, and so threads, of each trial."""
    gpus: float
    """GPUs of each trial; 0 means that they train on the CPU."""
    stopwatch: bool = False
    """Whether one more core (and share of a GPU) is reserved for measuring latency."""

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def cores(self) -> int:
        """All cores that the search uses."""
        return self.concurrency * self.cpus + self.stopwatch


def this_machine(device: str = "auto") -> Node:
    """What this machine has; without GPUs if `device` is cpu.

    Importing torch takes seconds, so it is not imported if there is no driver of a GPU.
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
    cluster: bool = False,
) -> Shares:
    """The shares that flags ask for, with defaults for the others: on GPUs as many trials at once
    as memory and cores allow (see `_trials_per_gpu`), which divide the cores among them; on CPUs a
    core for each trial, and as many trials as fit on all nodes.

    With a stopwatch, one core (if there are several) and a share of a GPU stay free for it. To keep
    its measurements undisturbed, the default share is then a whole GPU (half if there is only one).

    Args:
        device: auto (GPUs if there are any), cpu or cuda.
        cluster: the nodes are those of a Ray cluster, even if it is only one: Ray then gives no
            more cores than they have, while a Ray of our own takes as many as we tell it.

    Raises:
        UserError: no node has that much, or there is no room for a trial beside the stopwatch: Ray
            would wait for it for ever.
    """
    cluster = cluster or len(nodes) > 1
    most = max(node.gpus for node in nodes) if device != "cpu" else 0.0
    where = "no machine" if cluster else "this machine"
    if device == "cuda" and not most:
        raise UserError("--device cuda: no CUDA device is visible here; use --device cpu or auto")
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
    if cluster and cpus is not None and cpus > max(node.cpus for node in nodes):
        raise UserError(
            f"--cpus-per-trial {cpus}: {where} has more than "
            f"{max(node.cpus for node in nodes):g} cores; give at most that"
        )
    if share and stopwatch and _shares_on_gpus(nodes, share) < 2:
        raise UserError(
            f"--gpus-per-trial {share:g}: leaves no room for measuring latency, which takes as "
            f"much of a GPU as a trial; give at most {_largest_share(nodes):g}"
        )
    cpus = cpus or (_default_cpus(nodes, share, concurrency, stopwatch) if share else 1)
    total = _trials_at_once(nodes, cpus, share, stopwatch)
    if cluster and total < 1:
        raise UserError(_too_few_cores(nodes, cpus, share, stopwatch))
    return Shares(
        concurrency=concurrency or max(1, total), cpus=cpus, gpus=share, stopwatch=stopwatch
    )


def _too_few_cores(nodes: Sequence[Node], cpus: int, share: float, stopwatch: bool) -> str:
    """The message for a cluster on which no trial fits."""
    taken = " beside measuring latency, which takes one" if stopwatch else ""
    fitting = [n for n in range(1, cpus) if _trials_at_once(nodes, n, share, stopwatch) > 0]
    if fitting:
        machine = "machine with a GPU" if share else "machine"
        return (
            f"--cpus-per-trial {cpus}: no {machine} has as many cores{taken}; give at most "
            f"{max(fitting)}"
        )
    return (
        f"--address: the cluster has no core for a trial{' on a GPU' if share else ''}{taken}; add "
        "a machine, or train on this one without the flag (and RAY_ADDRESS)"
    )


def _trials_at_once(nodes: Sequence[Node], cpus: int, share: float, stopwatch: bool) -> int:
    """Trials that fit on all nodes, with the stopwatch where it costs the fewest of them."""
    total = sum(_capacity(node, cpus, share) for node in nodes)
    if stopwatch:
        costs = [
            _capacity(node, cpus, share)
            - _capacity(Node(cpus=node.cpus - 1, gpus=node.gpus - share), cpus, share)
            for node in nodes
            if _capacity(node, 1, share)
        ]
        total -= min(costs, default=0)
    return total


def _shares_on_gpus(nodes: Sequence[Node], share: float) -> int:
    return sum(int(node.gpus / share + 1e-9) for node in nodes)


def _largest_share(nodes: Sequence[Node]) -> float:
    """The largest share of GPUs that both a trial and the stopwatch can have: whole GPUs, or a part
    of one."""
    most = max(node.gpus for node in nodes)
    part = min(most, 1.0)
    shares = [*map(float, range(1, int(most) + 1)), part, part / 2]
    return max(share for share in shares if _shares_on_gpus(nodes, share) >= 2)


def _default_share(
    nodes: Sequence[Node], cpus: int, concurrency: int | None, stopwatch: bool
) -> float:
    """Share of a GPU for each trial."""
    if stopwatch:
        return min(1.0, _largest_share(nodes))
    gpus, most = sum(node.gpus for node in nodes), max(node.gpus for node in nodes)
    trials = min(_trials_per_gpu(node, cpus) for node in nodes if node.gpus)
    if concurrency is not None:
        trials = min(trials, math.ceil(concurrency / gpus))
    return min(most, gpu_share(trials))


def gpu_share(count: int) -> float:
    """Share of each of `count` users of a GPU, rounded down: Ray counts in ten-thousandths."""
    return math.floor(1e4 / count) / 1e4


def _trials_per_gpu(node: Node, cpus: int) -> int:
    """Trials at once on one GPU of a node: as many as its memory, the node's cores and
    MAX_TRIALS_PER_GPU allow, at least one."""
    by_memory, by_cores = int(node.gpu_gb / TRIAL_GPU_GB), int(node.cpus / node.gpus / cpus)
    return max(1, min(by_memory, by_cores, MAX_TRIALS_PER_GPU))


def _default_cpus(
    nodes: Sequence[Node], share: float, concurrency: int | None, stopwatch: bool
) -> int:
    """Cores for each trial on GPUs: a node's cores divided by the trials that fit on it."""

    def cores_per_trial(node: Node) -> int:
        trials = max(_capacity(node, 1, share), 1)
        if concurrency is not None:
            trials = min(trials, math.ceil(concurrency * node.gpus / gpus))
        return int((node.cpus - stopwatch) // trials)

    gpus = sum(node.gpus for node in nodes)
    return min(
        max(1, min(cores_per_trial(node) for node in nodes if node.gpus)), MAX_CPUS_PER_TRIAL
    )


def _capacity(node: Node, cpus: int, share: float) -> int:
    """Trials at once that fit on a node."""
    by_cores = max(int(node.cpus // cpus), 0)
    return min(by_cores, max(int(node.gpus / share + 1e-9), 0)) if share else by_cores
