"""Random samples of trials, for figures and statistics that cannot use them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def random_sample(items: Sequence[T], most: int, seed: int = 0) -> list[T]:
    """At most `most` random ones of `items`, in their order; the same ones for the same seed."""
    if len(items) <= most:
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), most, replace=False)
    return [items[index] for index in sorted(chosen)]
