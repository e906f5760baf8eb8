"""Latency: the time a network takes for one image, and the machine it was measured on."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Time of one forward pass of one image: wall-clock time on a CPU, device time on a GPU (see
    `latencies`)."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    machine: str
    """Processor, threads and torch version."""

    @property
    def spread_ms(self) -> float:
        """Difference between the 90th and the 10th percentile."""
        return self.p90_ms - self.p10_ms


def latency(
    model: Callable[[Tensor], object],
    size: tuple[int, int] = (640, 640),
    threads: int = 1,
    repeats: int = 30,
    device: torch.device | str = "cpu",
) -> Latency:
    """Latency of one network; see `latencies`."""
    return latencies({"": model}, size, threads, repeats, device)[""]


@torch.inference_mode()
def latencies(
    models: Mapping[Key, Callable[[Tensor], object]],
    size: tuple[int, int] = (640, 640),
    threads: int = 1,
    repeats: int = 30,
    device: torch.device | str = "cpu",
    *,
    warmup: int = 3,
) -> dict[Key, Latency]:
    """Latency of several networks, timed in alternation: all see the same state of the machine.

    On a GPU it is the device's time between two CUDA events, right before and right after the pass;
    the image is on the GPU already. If the CPU launches kernels more slowly than the GPU runs them,
    the gaps count: they are part of a small network's latency.

    Args:
        models: name → network on `device`, or any function of uint8 [1, 3, H, W] raw BGR pixels;
            modules are timed in evaluation mode, and their mode is restored.
        size: (height, width) of the image in pixels.
        threads: of torch while measuring.
        repeats: timed passes of each network, at least 1, after `warmup` untimed ones.
    """
    if repeats < 1 or threads < 1:
        raise ValueError(f"repeats {repeats} and threads {threads} must be at least 1")
    device = torch.device(device)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
    modules = [model for model in models.values() if isinstance(model, nn.Module)]
    modes = [module.training for module in modules]
    seconds: dict[Key, list[float]] = {name: [] for name in models}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for module in modules:
            module.eval()
        for repeat in range(warmup + repeats):
            for name, model in models.items():
                duration = _timed(model, image)
                if repeat >= warmup:
                    seconds[name].append(duration)
    finally:
        torch.set_num_threads(before)
        for module, mode in zip(modules, modes):
            module.train(mode)
    machine = machine_name(threads, device)
    return {name: _summary(durations, machine) for name, durations in seconds.items()}


def machine_name(threads: int, device: torch.device | str = "cpu") -> str:
    """Such as "Intel(R) Xeon(R) Processor, 1 thread, torch 2.15.0"."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_cpu()}, {threads} thread{'s' * (threads != 1)}, torch {torch.__version__}"


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _timed(model: Callable[[Tensor], object], image: Tensor) -> float:
    """Seconds of one pass."""
    if image.is_cuda:
        return _timed_on_gpu(model, image)
    started = time.perf_counter()
    model(image)
    return time.perf_counter() - started


def _timed_on_gpu(model: Callable[[Tensor], object], image: Tensor) -> float:
    stream = torch.cuda.current_stream(image.device)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record(stream)
    model(image)
    after.record(stream)
    after.synchronize()
    return before.elapsed_time(after) / 1000


def _summary(seconds: list[float], machine: str) -> Latency:
    low, median, high = np.percentile(seconds, [10, 50, 90]) * 1000
    return Latency(
        median_ms=float(median),
        p10_ms=float(low),
        p90_ms=float(high),
        repeats=len(seconds),
        machine=machine,
    )
