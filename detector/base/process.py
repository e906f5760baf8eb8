"""What every process of this project sets when it starts."""

import gc

GC_THRESHOLD = 50_000
"""Allocations between runs of the garbage collector; Python's default is 700."""


def relax_gc() -> None:
    """Run the garbage collector less often.

    Importing torch, Ray and MLflow creates a million objects that stay; scanning them again and
    again took a sixth of the import time. Objects without reference cycles are freed at once
    anyway.
    """
    gc.set_threshold(GC_THRESHOLD)
