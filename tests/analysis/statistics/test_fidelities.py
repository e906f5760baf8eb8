"""Rounds of growing budgets against closed forms, least squares, and made-up designs."""

import numpy as np
import pytest

from analysis.statistics.fidelities import (
    PRIOR_MEAN,
    PRIOR_STD,
    RESIDUAL,
    most_promising,
    posterior,
    sample_last,
    shares_of_best,
    shares_of_front,
)
from trials.growth import Growth

NAN = np.nan


def rng(seed=0):
    return np.random.default_rng(seed)


def test_without_designs_the_line_is_the_prior():
    line = posterior(np.zeros((0, 3)), np.zeros(0), rng(), draws=200_000)
    np.testing.assert_allclose(line.coefficients.mean(axis=0), PRIOR_MEAN, atol=0.02)
    # student t with 4 degrees of freedom: variance twice the prior's
    np.testing.assert_allclose(line.coefficients.std(axis=0), 2**0.5 * PRIOR_STD, rtol=0.05)
    assert np.median(1 / line.residual**2) == pytest.approx(0.839 / RESIDUAL**2, rel=0.02)


def test_with_many_designs_the_line_is_that_of_least_squares():
    x = np.stack([np.ones(500), rng(1).normal(size=500), rng(2).normal(size=500)], axis=1)
    y = x @ [0.7, 1.3, -0.2] + 0.1 * rng(3).normal(size=500)
    line = posterior(x, y, rng())
    expected, *_ = np.linalg.lstsq(x, y, rcond=None)
    np.testing.assert_allclose(line.coefficients.mean(axis=0), expected, atol=2e-3)
    spread = 0.1 * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
    np.testing.assert_allclose(line.coefficients.std(axis=0), spread, rtol=0.1)
    assert line.residual.mean() == pytest.approx(0.1, rel=0.1)


def test_what_was_trained_in_the_last_round_is_known_but_for_its_noise():
    accuracy = np.array([[0.5, 0.7], [0.4, 0.65], [0.45, NAN]])
    draws = sample_last(accuracy, np.array([1e9, 5e8, 7e8]), 0.01)
    np.testing.assert_allclose(draws.mean(axis=0)[:2], [0.7, 0.65], atol=1e-3)
    np.testing.assert_allclose(draws.std(axis=0)[:2], 0.01, rtol=0.05)
    assert 0.6 < draws[:, 2].mean() < 0.75 and draws[:, 2].std() > 0.03


def test_two_equal_designs_are_a_tie():
    scores = sample_last(np.array([[0.4, 0.7], [0.4, 0.7]]), np.array([1e9, 1e9]), 0.01)
    np.testing.assert_allclose(shares_of_best(scores), [0.5, 0.5], atol=0.03)


def test_a_round_in_between_that_turns_the_order_counts_more_than_the_first():
    accuracy = np.array([[0.5, 0.55, NAN], [0.45, 0.65, NAN], [0.48, 0.6, NAN]])
    best = shares_of_best(sample_last(accuracy, np.full(3, 1e9), 0.01))
    assert list(np.argsort(-best)) == [1, 2, 0]


def test_a_bias_by_cost_is_learnt():
    """Where large designs gain twice as much from the full budget, an untrained large one is
    expected to, too."""
    macs = np.array([1e8, 2e8, 4e8, 8e8, 1.6e9, 3.2e9] * 3)
    first = 0.4 + 0.02 * rng(0).normal(size=18)
    odds = np.log(first / (1 - first)) + 0.5 + 0.6 * np.log10(macs / 1e8)
    second = 1 / (1 + np.exp(-odds))
    hidden = np.array([0, 5])
    accuracy = np.stack([first, second], axis=1)
    accuracy[hidden, 1] = NAN
    draws = sample_last(accuracy, macs, 0.0)
    np.testing.assert_allclose(draws.mean(axis=0)[hidden], second[hidden], atol=0.02)


def test_intervals_hold_what_they_promise():
    """Over many made-up studies, nine of ten untrained designs end in their 90 % interval."""
    inside, count = 0, 0
    for seed in range(60):
        r = rng(seed)
        macs, first = 10 ** r.uniform(8, 9.5, 20), r.uniform(0.3, 0.6, 20)
        odds = np.log(first / (1 - first))
        later = odds + r.normal(0.8, 0.5) + r.normal(0, 0.1) * np.log10(macs / macs.mean())
        later += 0.15 * r.normal(size=20)
        second = 1 / (1 + np.exp(-later))
        accuracy = np.stack([first, second], axis=1)
        accuracy[6:, 1] = NAN
        low, high = np.quantile(sample_last(accuracy, macs, 0.0, seed=seed), [0.05, 0.95], axis=0)
        inside += ((low <= second) & (second <= high))[6:].sum()
        count += 14
    assert 0.84 < inside / count < 0.97


def test_shares_by_counting():
    scores = np.array([[3.0, 2, 1], [1, 3, 2], [3, 1, 2], [3, 2, 1]])
    np.testing.assert_allclose(shares_of_best(scores), [0.75, 0.25, 0])
    np.testing.assert_allclose(shares_of_best(scores, 2), [0.75, 0.75, 0.5])
    np.testing.assert_allclose(shares_of_best(scores, 5), 1)
    cost = np.array([3.0, 2, 1])  # the dearest is on the front only where it is the best
    np.testing.assert_allclose(shares_of_front(scores, cost), [0.75, 0.75, 1])


def test_every_third_design_is_chosen_for_the_front():
    best, front = np.array([0.5, 0.3, 0.2, 0, 0]), np.array([0.9, 0.1, 0.2, 0.3, 1.0])
    assert most_promising(best, front, 3) == [0, 1, 4]
    assert most_promising(best, front, 6) == [0, 1, 4, 2, 3]


def test_rounds_that_are_still_to_come_add_uncertainty():
    accuracy = np.array([[0.5, NAN, NAN], [0.4, NAN, NAN], [0.3, NAN, NAN]])
    draws = sample_last(accuracy, np.full(3, 1e9), 0.0)
    one_step = sample_last(accuracy[:, :2], np.full(3, 1e9), 0.0)
    assert (draws.std(axis=0) > one_step.std(axis=0)).all()
    assert list(np.argsort(-shares_of_best(draws))) == [0, 1, 2]


def test_a_known_growth_is_what_rounds_expect_before_their_trainings():
    """An equal part for each of the two steps; large designs gain more."""
    growth = Growth(base=0.4, per_decade=1.0)
    macs = np.array([1e8, 1e9])
    accuracy = np.array([[0.4, NAN, NAN], [0.4, NAN, NAN]])
    draws = sample_last(accuracy, macs, 0.0, growth=growth, draws=40_000)
    middle = np.median(draws, axis=0)
    gained = np.log(middle / (1 - middle)) - np.log(0.4 / 0.6)
    np.testing.assert_allclose(gained, growth.of(macs), atol=0.05)
