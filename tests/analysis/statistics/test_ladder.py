"""Proxies compared with full trainings: correlations, and biases that are known."""

import numpy as np
import pytest

from analysis.statistics.ladder import (
    Rungs,
    bias,
    family_bias,
    growth,
    looks,
    spread,
    within_families,
)
from trials.record import combined_score


def rungs(proxy, full, macs=None, families=None, speed=None):
    count = len(full)
    speed = np.zeros(count) if speed is None else speed
    return Rungs(
        looks=tuple(range(1, proxy.shape[1] + 1)),
        proxy=proxy,
        full=full,
        proxy_scores=combined_score(proxy, speed[:, None]),
        full_scores=combined_score(full, speed),
        macs=np.logspace(8, 9, count) if macs is None else macs,
        families=tuple(families or ["a"] * count),
    )


@pytest.fixture
def rough_intervals(monkeypatch):
    """For tests of values: intervals take seconds to estimate well."""
    monkeypatch.setattr("analysis.statistics.ladder.RESAMPLES", 20)


def test_a_perfect_look_and_a_reversed_one(rough_intervals):
    full = np.linspace(0.2, 0.6, 12)
    first, last = looks(rungs(np.stack([-full, full], axis=1), full))
    assert (first.accuracy.value, last.accuracy.value) == pytest.approx((-1, 1))
    assert (first.within, last.within) == (-1, 1)
    assert (first.epoch, last.epoch) == (1, 2)


def test_the_score_adds_speed_on_both_sides(rough_intervals):
    """Where speed decides all, even a random proxy ranks the scores."""
    rng = np.random.default_rng(0)
    look = looks(
        rungs(rng.random((20, 1)), rng.random(20), speed=100 * np.arange(20.0)),
    )[0]
    assert look.score.value == 1 and abs(look.accuracy.value) < 0.5


def test_within_families_counts_pairs_of_one_family_by_hand():
    x, y = np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 3, 4])
    assert within_families(x, y, ["a", "a", "b", "b"]) == 0  # -1 and +1
    assert within_families(x, y, list("aaab")) == pytest.approx(1 / 3)  # -1, +1, +1
    assert np.isnan(within_families(x, y, list("abcd")))


def test_growth_is_the_line_that_the_designs_follow():
    """Against another solution of least squares, and the true line."""
    rng = np.random.default_rng(2)
    macs = np.logspace(7.5, 10, 30)
    proxy = rng.uniform(0.1, 0.5, (30, 1))
    gained = 0.3 + 1.5 * np.log10(macs / 1e8) + 0.1 * rng.normal(size=30)
    full = 1 / (1 + (1 / proxy[:, 0] - 1) * np.exp(-gained))
    found = growth(rungs(proxy, full, macs=macs))
    slope, base = np.polyfit(np.log10(macs / 1e8), gained, 1)
    assert (found.base, found.per_decade) == pytest.approx((base, slope))
    assert found.per_decade == pytest.approx(1.5, abs=4 * found.error)
    assert found.error == pytest.approx(0.1 / (np.log10(macs).std() * 30**0.5), rel=0.3)


def test_a_bias_against_large_designs_is_found():
    """The proxy shows 0.1 less for each factor 10 of MACs, and 0.05 less for one family."""
    rng = np.random.default_rng(1)
    macs = np.logspace(8, 10, 40)
    families = ["a", "b"] * 20
    full = rng.uniform(0.2, 0.8, 40)
    lost = 0.1 * (np.log10(macs) - 8) + 0.05 * np.array([name == "b" for name in families])
    found = bias(rungs((full - lost)[:, None], full, macs, families))
    assert found.low < 0.1 < found.high and found.low > 0
    mean = family_bias(rungs((full - lost)[:, None], full, macs, families))
    assert mean["b"] - mean["a"] == pytest.approx(0.05, abs=0.02)
    assert not family_bias(rungs(full[:, None], full, macs, families))["a"] > 1e-9


@pytest.mark.parametrize("macs", [np.full(40, 5e8), np.linspace(0.5e9, 0.55e9, 40)])
def test_designs_of_nearly_one_cost_say_nothing_about_cost(macs):
    rng = np.random.default_rng(2)
    alike = rungs(rng.uniform(0.2, 0.4, (40, 1)), rng.uniform(0.5, 0.7, 40), macs)
    assert bias(alike) is None and growth(alike) is None and len(looks(alike)) == 1


def test_spread_designs_cover_costs_values_and_families():
    rng = np.random.default_rng(2)
    costs, values = 10 ** rng.uniform(8, 10, 100), rng.random(100)
    families = ["common"] * 97 + ["rare"] * 3
    chosen = spread(costs, values, families, 12)
    assert chosen[0] == 0 and len(set(chosen)) == 12
    assert "rare" in {families[index] for index in chosen}
    logs = np.log10(costs[chosen])
    assert logs.min() < 8.3 and logs.max() > 9.7
    assert spread(costs[:5], values[:5], families[:5], 12) == [0, 1, 2, 3, 4]
