"""Whether our own Triton kernels run on the GPU here, and how many multiprocessors it has."""

from __future__ import annotations

import functools
import logging
from importlib.util import find_spec

import torch

logger = logging.getLogger(__name__)


@functools.cache
def kernels_run() -> bool:
    """Whether Triton builds a kernel that runs on the current GPU.

    Triton compiles a kernel at its first use, with a C compiler and Python's headers, and not for
    every GPU. If it fails, one line in the log says why, and torch's own kernels are used.
    """
    if find_spec("triton") is None:
        return False
    try:
        fault = None if _built() == 1 else "a kernel gave a wrong result"
    except Exception as error:  # of any type: from the compiler, the linker or the driver
        fault = " ".join(str(error).split())[:200] or type(error).__name__
    if fault:
        logger.warning(
            "note: Triton cannot be used here (%s), which makes training on the GPU slower. "
            "It needs a C compiler and Python's headers, such as gcc and python3-dev",
            fault,
        )
    return fault is None


def _built() -> int:
    """The 1 that a kernel wrote."""
    from detector.gpu.probe import write_one

    out = torch.zeros(1, dtype=torch.int32, device="cuda")
    write_one[(1,)](out)
    return int(out.item())


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Number of a GPU's multiprocessors; 1 on a CPU (under Triton's interpreter)."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
