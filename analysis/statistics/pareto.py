"""Pareto fronts and hypervolumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trials.record import TrialRecord, learned


def dominated(points: np.ndarray) -> np.ndarray:
    """Which points are dominated: another one is at least as good in all values, better in one.

    Args:
        points: float [N, D], larger is better. Equal points do not dominate each other, nor does
            NaN compare with anything.

    Returns:
        bool [N].
    """
    points = np.asarray(points, dtype=float)
    result = np.zeros(len(points), dtype=bool)
    if not len(points):
        return result
    # In this order no point is dominated by a later one, so the first of those that remain is on
    # the front: time grows with points × the size of the front.
    order = np.lexsort(-points.T[::-1])
    remaining = order[~np.isnan(points[order]).any(axis=1)]
    while len(remaining):
        point, others = points[remaining[0]], remaining[1:]
        worse = (points[others] <= point).all(axis=1) & (points[others] < point).any(axis=1)
        result[others[worse]] = True
        remaining = others[~worse]
    return result


def hypervolume_2d(points: np.ndarray, reference: tuple[float, float] = (0.0, 0.0)) -> float:
    """Area that the points dominate above `reference`; 0 without points above it.

    Args:
        points: float [N, 2], larger is better.
    """
    points = np.asarray(points, dtype=float).reshape(-1, 2) - reference
    points = points[(points > 0).all(axis=1)]
    points = points[np.lexsort((-points[:, 1], -points[:, 0]))]  # by descending x
    area, height = 0.0, 0.0
    for x, y in points:  # each adds the strip above all points to its right
        area += x * max(y - height, 0.0)
        height = max(height, y)
    return float(area)


def objectives(records: Sequence[TrialRecord]) -> np.ndarray:
    """(accuracy_score, speed_score) of records that have both: float [N, 2]."""
    values = [(r.accuracy_score, r.speed_score) for r in records]
    return np.array(values, dtype=float).reshape(-1, 2)


def front_of(records: Sequence[TrialRecord], metric: str) -> list[TrialRecord]:
    """The records that no other dominates in accuracy and cost, cheapest first.

    Records without an AP or that cost, and those that have learned nothing, are left out. Pass
    completed trials only: an AP at a lower budget is not comparable.

    Args:
        metric: of the cost: macs, params or latency_ms. Not the speed score, which does not tell
            designs apart beyond its limits.
    """
    records = [
        r
        for r in learned(records)
        if r.accuracy_score is not None and getattr(r.cost, metric) is not None
    ]
    points = np.array([(-getattr(r.cost, metric), r.accuracy_score) for r in records], dtype=float)
    is_dominated = dominated(points.reshape(-1, 2))
    return sorted(
        (r for r, worse in zip(records, is_dominated) if not worse),
        key=lambda r: (getattr(r.cost, metric), r.number),
    )


def hypervolume_of(records: Sequence[TrialRecord]) -> float:
    """Area under the front of accuracy × speed, in [0, 1]: 1 would be perfect in both."""
    return hypervolume_2d(objectives([r for r in records if r.accuracy_score is not None]))


def running_fronts(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The front of the first 1, 2, … N points, in two numbers.

    Args:
        points: float [N, 2] in [0, inf), larger is better.

    Returns:
        `hypervolume_2d`, float [N], non-decreasing; points on the front, int [N].
    """
    front, area, areas, sizes = np.zeros((0, 2)), 0.0, [], []
    for point in np.asarray(points, dtype=float).reshape(-1, 2):
        as_good, better = (front >= point).all(axis=1), (front > point).any(axis=1)
        if not (as_good & better).any():
            worse = (front <= point).all(axis=1) & (front < point).any(axis=1)
            front = np.vstack([front[~worse], point])
            area = hypervolume_2d(front)
        areas.append(area)
        sizes.append(len(front))
    return np.array(areas, dtype=float), np.array(sizes, dtype=int)


def attained(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The highest second value among the points whose first is at least `at`: the front as a
    function.

    Args:
        points: float [N, 2], larger is better.
        at: float [K].

    Returns:
        float [K]; -inf where no point reaches that far.
    """
    points = np.asarray(points, dtype=float).reshape(-1, 2)
    reached = points[None, :, 0] >= np.asarray(at, dtype=float)[:, None]
    return np.where(reached, points[None, :, 1], -np.inf).max(axis=1, initial=-np.inf)


def attainment(fronts: Sequence[np.ndarray], at: np.ndarray, share: float = 0.5) -> np.ndarray:
    """What at least `share` of several searches attained: their empirical attainment function
    (Grunert da Fonseca, Fonseca and Hall, EMO 2001).

    Args:
        fronts: the points of each search, float [N, 2] as for `attained`.
        at: float [K].
        share: in (0, 1]: 1 what all attained, 0.5 what half of them did.

    Returns:
        float [K]; -inf where fewer of them reached that far.
    """
    levels = -np.sort(-np.stack([attained(front, at) for front in fronts]), axis=0)  # best first
    return levels[int(np.ceil(share * len(levels))) - 1]
