import helpers
import numpy as np
import pytest

from analysis.statistics.choice import choose_from
from analysis.statistics.correlation import (
    compare,
    comparisons,
    fit_line,
    rank_correlation,
    score_deviation,
    tied_with_best,
)
from trials.record import Cost, EpochResult


def test_rank_correlations_in_closed_form():
    x = np.arange(10.0)
    for kind in ("kendall", "spearman"):
        same, reverse = rank_correlation(x, x**3, kind), rank_correlation(x, -x, kind)
        assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
        assert reverse.value == pytest.approx(-1)
    # One neighbouring pair of 10 swapped: 44 pairs agree, 1 does not.
    swapped = x.copy()
    swapped[[3, 4]] = 4, 3
    assert rank_correlation(x, swapped).value == pytest.approx(43 / 45)
    # Spearman: 1 - 6 Σd² / n(n² - 1), Σd² = 2.
    assert rank_correlation(x, swapped, "spearman").value == pytest.approx(1 - 12 / 990)


def test_interval_covers_the_true_value():
    """Kendall's τ of a bivariate normal is 2/π · arcsin ρ (Greiner)."""
    rng, rho = np.random.default_rng(0), 0.6
    truth = 2 / np.pi * np.arcsin(rho)
    covered = 0
    for seed in range(40):
        x = rng.normal(size=60)
        y = rho * x + (1 - rho**2) ** 0.5 * rng.normal(size=60)
        tau = rank_correlation(x, y, seed=seed, resamples=150)
        covered += tau.low <= truth <= tau.high
    assert covered >= 34  # 95 % of 40 is 38


def test_few_pairs_and_flat_values_have_no_interval():
    assert np.isnan(rank_correlation([1, 2, 3], [1, 2, 3]).low)
    assert np.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).value)
    assert np.isnan(rank_correlation([], []).value)
    assert np.isnan(fit_line([1, 1, 1, 1, 1], [1, 2, 3, 4, 5])[2])


def test_line_and_its_residuals():
    rng = np.random.default_rng(0)
    x = rng.random(4000)
    slope, intercept, deviation = fit_line(x, 2 * x + 1 + rng.normal(0, 0.1, 4000))
    assert (slope, intercept, deviation) == pytest.approx((2, 1, 0.1), abs=0.01)


def test_tied_by_hand():
    scores = [1.0, 0.9, 0.5]
    assert tied_with_best(scores, 0.0) == 1
    assert tied_with_best(scores, 0.05) == 2  # 1.96 × √2 × 0.05 = 0.139
    assert tied_with_best(scores, 1.0) == 3 and tied_with_best([], 1.0) == 0


def test_an_informative_budget_and_an_uninformative_one():
    rng = np.random.default_rng(0)
    x = dict(enumerate(rng.random(30)))
    records = {number: helpers.trial_record(number, speed_score=0.5) for number in x}
    good = compare("epoch 3", "epoch 7", x, {n: 2 * v for n, v in x.items()}, records)
    assert good.tied == 1 and "ranks the designs as epoch 7" in good.sentence
    assert "the best of 30 stands out" in good.sentence
    bad = compare("epoch 3", "epoch 7", x, dict(enumerate(rng.random(20))), records)
    assert bad.tied == 30 and "does not reliably rank" in bad.sentence
    assert "the top 30 of 30 cannot be told apart" in bad.sentence
    few = compare("epoch 3", "epoch 7", x, {0: 0.5}, records)
    assert few.tied == 0 and "too few to" in few.sentence


def test_rungs_and_retrains_of_records(generated_study):
    from analysis.records.load import load_records

    records = load_records(generated_study("one", 60))
    retrained = {r.number: r.accuracy_score + 0.3 for r in records if len(r.epochs) == 7}
    rungs, proxy = comparisons(records, retrained)
    assert (rungs.low_budget, rungs.high_budget, proxy.high_budget) == (
        "epoch 3",
        "epoch 7",
        "the retrain",
    )
    assert rungs.kendall.pairs == proxy.kendall.pairs == len(retrained)
    assert rungs.considered == sum(bool(r.epochs) for r in records)
    assert proxy.kendall.value == pytest.approx(1) and proxy.deviation == pytest.approx(0, abs=1e-9)
    deviation, source = score_deviation([rungs])
    assert deviation == 2 * rungs.deviation and source == "between epoch 3 and epoch 7"
    assert score_deviation([])[0] is None


@pytest.mark.parametrize("slope", [1.0, 0.3, 0.1])
def test_a_choice_is_as_sure_as_the_proxies_predict_retrains(slope):
    """The same designs cannot be told apart, whether it is said of retrains or of the proxies'
    scores: here costs are equal, so that both rank by accuracy alone."""

    def epoch(accuracy):
        return EpochResult(epoch=7, losses={}, lr=0.1, seconds=1.0, ap=helpers.equal_ap(accuracy))

    rng = np.random.default_rng(0)
    records = [
        helpers.trial_record(
            number,
            cost=Cost(params=10**5, macs=10**9),
            epochs=(epoch(0.2 + 0.03 * number),),
        )
        for number in range(11)
    ]
    retrained = {n: 0.5 + slope * 0.03 * n + rng.normal(0, 0.01) for n in range(11)}
    results = comparisons(records, retrained)
    assert choose_from(records, "macs", score_deviation(results)).tied == results[-1].tied
