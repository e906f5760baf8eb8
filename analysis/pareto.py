"""Fronts and hypervolumes: numbers alone, no drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trials.record import TrialRecord


def dominated(points: np.ndarray) -> np.ndarray:
    """Which points another one beats: at least as good in all values, better in one.

    Args:
        points: float [N, D], each value the larger the better. Equal points do not beat each other.

    Returns:
        bool [N].
    """
    points = np.asarray(points, dtype=float)
    result = np.zeros(len(points), dtype=bool)
    for index, point in enumerate(points):
        as_good = (points >= point).all(axis=1)
        result[index] = (as_good & (points > point).any(axis=1)).any()
    return result


def hypervolume_2d(points: np.ndarray, reference: tuple[float, float] = (0.0, 0.0)) -> float:
    """Area that the points dominate above `reference`; 0 without points above it.

    Args:
        points: float [N, 2], each value the larger the better.
    """
    points = np.asarray(points, dtype=float).reshape(-1, 2) - reference
    points = points[(points > 0).all(axis=1)]
    points = points[np.lexsort((-points[:, 1], -points[:, 0]))]  # x falling
    area, height = 0.0, 0.0
    for x, y in points:  # each adds the strip above all points to its right
        area += x * max(y - height, 0.0)
        height = max(height, y)
    return float(area)


def objectives(records: Sequence[TrialRecord]) -> np.ndarray:
    """(accuracy_score, speed_score) of records that have both: float [N, 2]."""
    values = [(r.accuracy_score, r.speed_score) for r in records]
    return np.array(values, dtype=float).reshape(-1, 2)


def front_of(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The records that no other beats in both accuracy and speed, fastest first.

    Records without an AP are left out. Hand in completed trials only: an AP at a lower budget is
    not comparable.
    """
    records = [r for r in records if r.accuracy_score is not None]
    kept = ~dominated(objectives(records))
    return sorted((r for r, keep in zip(records, kept) if keep),
                  key=lambda r: (-r.speed_score, -r.accuracy_score, r.number))


def hypervolume_of(records: Sequence[TrialRecord]) -> float:
    """Area under the front of accuracy × speed, in [0, 1]: 1 would be perfect in both."""
    return hypervolume_2d(objectives([r for r in records if r.accuracy_score is not None]))
