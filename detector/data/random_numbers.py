"""The random numbers for the augmentation of an image, and what each of them decides.

Their layout is fixed: existing numbers keep their meaning, so that a seed gives the same images in
every version. New ones come from a second generator, since longer rows of the first one would move
all others.
"""

from __future__ import annotations

import numpy as np

TRIES = 50  # random squares for each image
SCALES, CORNERS = slice(0, TRIES), slice(TRIES, 3 * TRIES)
FACE, OFFSET, FLIP = 3 * TRIES, slice(3 * TRIES + 1, 3 * TRIES + 3), 3 * TRIES + 3
COLORS = slice(3 * TRIES + 4, 3 * TRIES + 12)
_FIRST = 3 * TRIES + 12
PERMUTE, PERMUTATION, INTERPOLATION = range(_FIRST, _FIRST + 3)
NUMBERS = _FIRST + 3
"""Random numbers in [0, 1) for the augmentation of an image."""


def random_numbers(
    count: int, first: np.random.Generator, second: np.random.Generator
) -> np.ndarray:
    """float64 [count, NUMBERS], uniform in [0, 1); a row for each image."""
    return np.concatenate(
        [first.random((count, _FIRST)), second.random((count, NUMBERS - _FIRST))], axis=1
    )
