"""How long a network takes for one image, and on which machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Time of one forward pass of one image: of the clock on the wall on a CPU, of its own on a GPU
    (see `latencies`)."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    machine: str
    """Processor, threads and torch version."""

    @property
    def spread_ms(self) -> float:
        """Width of the middle 80 % of the repeats."""
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
    models: Mapping[str, Callable[[Tensor], object]],
    size: tuple[int, int] = (640, 640),
    threads: int = 1,
    repeats: int = 30,
    device: torch.device | str = "cpu",
    *,
    warmup: int = 3,
) -> dict[str, Latency]:
    """Latency of several networks, taken in turns so that all meet the same state of the machine.

    On a GPU it is the device's time between two events in its queue, right before and right after
    the pass; the image is there already. Where the host is slower to queue a network's kernels than
    the GPU to run them, the gaps between them count: they are a part of what a small network takes.

    Args:
        models: name → network on `device`, or any function of uint8 [1, 3, H, W] raw BGR pixels;
            modules are timed in evaluation mode and left in the mode they were in.
        size: (height, width) of the image in pixels.
        threads: of torch, while measuring.
        repeats: timed passes of each, at least 1, after `warmup` untimed ones.
    """
    if repeats < 1 or threads < 1:
        raise ValueError(f"repeats {repeats} and threads {threads} must be at least 1")
    device = torch.device(device)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
    modes = {name: model.training for name, model in models.items() if isinstance(model, nn.Module)}
    seconds = {name: [] for name in models}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in modes:
            models[name].eval()
        for turn in range(warmup + repeats):
            for name, model in models.items():
                spent = _timed(model, image)
                if turn >= warmup:
                    seconds[name].append(spent)
    finally:
        torch.set_num_threads(before)
        for name, mode in modes.items():
            models[name].train(mode)
    machine = machine_name(threads, device)
    return {name: _summary(taken, machine) for name, taken in seconds.items()}


def machine_name(threads: int, device: torch.device | str = "cpu") -> str:
    """Such as "Intel(R) Xeon(R) Processor, 1 thread, torch 2.15.0"."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_cpu()}, {threads} thread{'s' * (threads != 1)}, torch {torch.__version__}"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
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
    queue = torch.cuda.current_stream(image.device)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record(queue)
    model(image)
    after.record(queue)
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
