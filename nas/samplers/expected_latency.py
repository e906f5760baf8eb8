"""The latency that a design will probably have, for samplers that compare designs by their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trials.record import Cost

PRIOR_WEIGHT = 0.1
"""Weight of the prior, by which latency grows with the MACs alone, in measured designs."""


def expected_costs(costs: Sequence[Cost], measured: Sequence[Cost]) -> list[Cost]:
    """`costs` with their latency as expected from designs that were measured; without one if none
    was.

    A power law of MACs and parameters, fitted to logarithms by regularised least squares.
    """
    pairs = [(cost, cost.latency_ms) for cost in measured if cost.latency_ms is not None]
    if not pairs:
        return list(costs)
    sizes = _log_sizes([cost for cost, _ in pairs])
    times = np.log([latency_ms for _, latency_ms in pairs])
    centre, level = sizes.mean(axis=0), times.mean()
    prior = np.array([1.0, 0.0])  # latency ~ MACs
    centred = sizes - centre
    slopes = prior + np.linalg.solve(
        centred.T @ centred + PRIOR_WEIGHT * np.eye(2),
        centred.T @ (times - level - centred @ prior),
    )
    expected = np.exp(level + (_log_sizes(costs) - centre) @ slopes)
    return [replace(cost, latency_ms=float(ms)) for cost, ms in zip(costs, expected)]


def _log_sizes(costs: Sequence[Cost]) -> np.ndarray:
    """Logarithms of MACs and parameters, float [N, 2]."""
    return np.log([(cost.macs, cost.params) for cost in costs])
