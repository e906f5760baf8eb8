"""What each trial gets of the machines, and how many train at once. Light to import."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.errors import UserError

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""One of them is there where Linux has a GPU that torch can use: NVIDIA's, AMD's, one of WSL's."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine that trains."""

    cpus: float
    """Cores."""
    gpus: float = 0.0


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


def gpus_here() -> int:
    """GPUs of this machine that torch can use. Importing torch takes seconds, so it is not asked
    where there is no driver of any."""
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in GPU_DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def shares_of(nodes: Sequence[Node], *, device: str = "auto", cpus: int = 1,
              gpus: float | None = None, concurrency: int | None = None,
              stopwatch: bool = False) -> Shares:
    """The shares that flags ask for, and sensible ones where they say nothing: a whole GPU for
    each trial where there are any, as many trials at once as all nodes have room for.

    With a stopwatch one core stays free for it where there is more than one, and a share of a GPU
    (by default half of it where there is one alone).

    Args:
        device: auto (GPUs where there are any), cpu or cuda.

    Raises:
        UserError: no node has that much.
    """
    most = max(node.gpus for node in nodes) if device != "cpu" else 0.0
    where = "this machine" if len(nodes) == 1 else "no machine"
    if device == "cuda" and not most:
        raise UserError("--device cuda: no CUDA device is seen here; use --device cpu or auto")
    alone = stopwatch and sum(node.gpus for node in nodes) <= 1
    share = gpus if gpus is not None else min(most, 0.5 if alone else 1.0)
    if not 0 <= share <= most:
        rule = f"{where} has {most:g}; give at most that" if where == "this machine" else (
            f"{where} has more than {most:g}; give at most that")
        raise UserError(f"--gpus-per-trial {share:g}: {rule}" if share > 0 else
                        f"--gpus-per-trial {share:g}: must not be negative")
    if cpus < 1:
        raise UserError(f"--cpus-per-trial {cpus}: must be at least 1")
    if len(nodes) > 1 and cpus > max(node.cpus for node in nodes):
        raise UserError(f"--cpus-per-trial {cpus}: {where} has more than "
                        f"{max(node.cpus for node in nodes):g} cores; give at most that")
    if concurrency is None:
        rooms = [_room(node, cpus, share) for node in nodes]
        if stopwatch:  # where it costs the fewest trials
            rooms[0] -= min(_room(node, cpus, share) - _room(
                Node(cpus=node.cpus - 1, gpus=node.gpus - share), cpus, share) for node in nodes)
        concurrency = max(1, sum(rooms))
    if concurrency < 1:
        raise UserError(f"--concurrency {concurrency}: must be at least 1")
    return Shares(concurrency=concurrency, cpus=cpus, gpus=share, stopwatch=stopwatch)


def _room(node: Node, cpus: int, share: float) -> int:
    """Trials at once."""
    room = max(int(node.cpus // cpus), 0)
    return min(room, max(int(node.gpus / share + 1e-9), 0)) if share else room
