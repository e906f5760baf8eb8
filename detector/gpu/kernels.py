"""Whether kernels of our own can run on the GPU here, and how wide it is."""

from __future__ import annotations

import functools
import sys
from importlib.util import find_spec

import torch


@functools.cache
def kernels_run() -> bool:
    """Whether Triton builds a kernel that runs on the present GPU.

    It builds them when they are first used, by a C compiler and Python's headers, and not for every
    GPU. Where it cannot, one line on stderr says why, and torch's own kernels do the work.
    """
    if find_spec("triton") is None:
        return False
    try:
        fault = None if _built() == 1 else "a kernel gave a wrong result"
    except Exception as error:  # of the compiler, the linker, the driver: whatever it is
        fault = " ".join(str(error).split())[:200] or type(error).__name__
    if fault:
        print(
            f"note: Triton cannot be used here ({fault}); training on the GPU is slower without. "
            "It needs a C compiler and Python's headers, such as gcc and python3-dev",
            file=sys.stderr,
        )
    return fault is None


def _built() -> int:
    """1, by a kernel."""
    from detector.gpu.probe import write_one

    out = torch.zeros(1, dtype=torch.int32, device="cuda")
    write_one[(1,)](out)
    return int(out.item())


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU; 1 under Triton's interpreter, on a CPU."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
