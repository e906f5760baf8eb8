"""The latency that a design will probably have, for samplers that weigh designs by their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trials.record import Cost

PRIOR = 0.1
"""Weight of the belief that latency grows with the MACs alone, in measured designs."""


def expected_costs(costs: Sequence[Cost], measured: Sequence[Cost]) -> list[Cost]:
    """`costs` with the latency expected from designs that were measured; as they are where none
    was.

    A power law of MACs and parameters, fitted to logarithms by least squares.
    """
    known = [cost for cost in measured if cost.latency_ms is not None]
    if not known:
        return list(costs)
    sizes = _logs(known)
    times = np.log([cost.latency_ms for cost in known])
    centre, level = sizes.mean(axis=0), times.mean()
    prior = np.array([1.0, 0.0])  # latency ~ MACs
    centred = sizes - centre
    slopes = prior + np.linalg.solve(
        centred.T @ centred + PRIOR * np.eye(2), centred.T @ (times - level - centred @ prior)
    )
    told = np.exp(level + (_logs(costs) - centre) @ slopes)
    return [replace(cost, latency_ms=float(value)) for cost, value in zip(costs, told)]


def _logs(costs: Sequence[Cost]) -> np.ndarray:
    """float [N, 2]."""
    return np.log([(cost.macs, cost.params) for cost in costs])
