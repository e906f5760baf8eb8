"""The expected latency of designs that were not measured."""

import numpy as np
import pytest

from nas.samplers.expected_latency import expected_costs
from trials.record import Cost


def cost(macs, params, latency_ms=None):
    return Cost(macs=macs, params=params, latency_ms=latency_ms)


def test_a_power_law_is_found():
    rng = np.random.default_rng(0)
    sizes = [(int(10**m), int(10**p)) for m, p in rng.uniform((8, 5), (11, 7.5), (80, 2))]
    known = [cost(m, p, 1e-6 * m**0.8 * p**0.1) for m, p in sizes]
    expected = expected_costs([cost(10**9, 10**6), cost(10**10, 10**7)], known)
    assert [c.latency_ms for c in expected] == pytest.approx(
        [1e-6 * 1e9**0.8 * 1e6**0.1, 1e-6 * 1e10**0.8 * 1e7**0.1], rel=0.01
    )


def test_one_measurement_scales_by_the_macs():
    (expected,) = expected_costs([cost(4 * 10**9, 10**6)], [cost(10**9, 10**6, 20.0)])
    assert expected.latency_ms == pytest.approx(80)
    assert expected.macs == 4 * 10**9


def test_costs_without_any_measurement_are_unchanged():
    costs = [cost(10**9, 10**6)]
    assert expected_costs(costs, [cost(1, 1)]) == costs
