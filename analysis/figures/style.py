"""Colours, labels and sizes that all figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Okabe and Ito's colours, safe for colour-blind readers; markers differ in shape, too.
FRONT, DOMINATED, BASELINE, BEST = "#0072B2", "#B8B8B8", "#D55E00", "#009E73"
QUOTED, RETRAINED, TEXT = "#606060", "#CC79A7", "#303030"
STUDIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
ACCURACY = "accuracy score: mean AP of easy, medium and hard"


def dot_area(params: float) -> float:
    """Area of a trial's dot in points²: 20 up to 10 k parameters, then 20 more per factor of 10."""
    return 20 + 20 * max(math.log10(max(params, 1) / 1e4), 0.0)


def size_marks(params: Sequence[int]) -> list[float]:
    """Powers of ten from the smallest to the largest model, at most three, for the legend."""
    low, high = math.floor(math.log10(min(params))), math.ceil(math.log10(max(params)))
    marks = [10.0**power for power in range(low, high + 1)]
    return marks if len(marks) <= 3 else [marks[0], marks[len(marks) // 2], marks[-1]]
