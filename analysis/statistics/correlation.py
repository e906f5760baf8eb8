"""How well a low budget ranks designs compared with a higher one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trials.record import TrialRecord

RESAMPLES = 500
MIN_PAIRS = 4
"""With fewer pairs, an interval means nothing: there are too few orders."""
MIN_SLOPE = 0.01
"""Of accuracies at a high budget over those at a low one, where a deviation is divided by it; below
this the low budget says next to nothing."""


@dataclass(frozen=True)
class Correlation:
    kind: str
    """kendall or spearman."""
    value: float
    """In [-1, 1]; NaN where one side does not vary."""
    low: float
    high: float
    """95 % interval by bootstrap over the pairs; NaN below MIN_PAIRS."""
    pairs: int


def rank_correlation(
    x: np.ndarray,
    y: np.ndarray,
    kind: str = "kendall",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Correlation:
    """Kendall's τ-b or Spearman's ρ (SciPy's) of paired values, with a percentile interval.

    Args:
        x, y: float [N].
        kind: kendall or spearman.
    """
    from scipy import stats

    measure = {"kendall": stats.kendalltau, "spearman": stats.spearmanr}[kind]
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)

    def correlate(x: np.ndarray, y: np.ndarray) -> float:
        varies = len(x) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0
        return float(measure(x, y).statistic) if varies else np.nan

    low = high = np.nan
    if len(x) >= MIN_PAIRS:
        rng = np.random.default_rng(seed)
        values = [correlate(x[i], y[i]) for i in rng.integers(0, len(x), (resamples, len(x)))]
        known = np.array([value for value in values if not np.isnan(value)])
        if len(known):
            low, high = (float(v) for v in np.quantile(known, [0.025, 0.975]))
    return Correlation(kind, correlate(x, y), low, high, len(x))


def fit_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least squares of `y` on `x`: slope, intercept, and the standard deviation of the residuals
    (N - 2 degrees of freedom); NaN below MIN_PAIRS or where `x` does not vary.

    Args:
        x, y: float [N].
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < MIN_PAIRS or np.ptp(x) == 0:
        return np.nan, np.nan, np.nan
    slope, intercept = np.polyfit(x, y, 1)
    residuals = y - slope * x - intercept
    return float(slope), float(intercept), float(np.sqrt((residuals**2).sum() / (len(x) - 2)))


def tied_with_best(scores: np.ndarray, deviation: float) -> int:
    """How many of `scores` do not differ significantly from the best one: by less than
    1.96 × √2 × `deviation`. The best itself counts.

    Args:
        scores: float [N].
        deviation: standard deviation of one score.
    """
    scores = np.asarray(scores, dtype=float)
    if not len(scores):
        return 0
    return int((scores >= scores.max() - 1.96 * 2**0.5 * deviation).sum())


def probability_of_best(scores: np.ndarray, deviation: float) -> float:
    """Probability that the design with the best of `scores` really is the best one, if each score
    is its design's plus an independent normal error.

    Args:
        scores: float [N], N at least 1.
        deviation: standard deviation of one score.
    """
    from scipy.special import log_ndtr

    scores = np.sort(np.asarray(scores, dtype=float))
    if deviation == 0:
        return 1 / int((scores == scores[-1]).sum())
    # the integral over the best one's error z, in deviations: all others lie below it
    z = np.linspace(-8, 8, 801)
    behind = (scores[-1] - scores[:-1]) / deviation
    below = log_ndtr(z[:, None] + behind).sum(axis=1)
    density = np.exp(-(z**2) / 2) / (2 * np.pi) ** 0.5
    return min(float((density * np.exp(below)).sum() * (z[1] - z[0])), 1.0)


@dataclass(frozen=True)
class Comparison:
    """The same designs at two budgets."""

    low_budget: str
    high_budget: str
    numbers: np.ndarray
    """int [N], trials that have both."""
    x: np.ndarray
    y: np.ndarray
    """float [N], accuracy_score at the low and at the high budget. Not the score: its speed term is
    the same on both sides and would inflate any correlation."""
    deviation: float
    """Standard deviation of the accuracy scores at the high budget about their `fit_line`."""
    score_deviation: float
    """The same of the scores, for the design that is expected to be the best."""
    low_score_deviation: float
    """Standard deviation of a score at the low budget, as a measurement of that at the high one:
    larger where accuracies at the high budget differ by less."""
    tied: int
    """Of `considered`, those whose score at the high budget, predicted from the low one, does not
    differ significantly from the best; 0 where unknown."""
    considered: int
    """The trials that have learned something."""
    seed: int = 0
    """Of the bootstrap."""

    @cached_property
    def kendall(self) -> Correlation:
        return rank_correlation(self.x, self.y, seed=self.seed)

    @cached_property
    def spearman(self) -> Correlation:
        return rank_correlation(self.x, self.y, "spearman", seed=self.seed)

    @property
    def sentence(self) -> str:
        """What it means for choosing a design."""
        tau = self.kendall
        if tau.pairs < MIN_PAIRS or np.isnan(tau.value):
            cause = "too few" if tau.pairs < MIN_PAIRS else "too much alike"
            return (
                f"Designs evaluated at both {self.low_budget} and {self.high_budget}: {tau.pairs}, "
                f"{cause} to say whether the two rank designs alike."
            )
        verdict = (
            "ranks the designs as"
            if tau.low > 0.6
            else "ranks the designs roughly as"
            if tau.low > 0.2
            else "is weakly related to how designs rank at"
            if tau.low > 0
            else "does not reliably rank the designs as"
        )
        tied = (
            f"the top {self.tied} of {self.considered} cannot be told apart at this budget"
            if self.tied > 1
            else f"the best of {self.considered} stands out at this budget"
        )
        return (
            f"{self.low_budget[0].upper()}{self.low_budget[1:]} {verdict} {self.high_budget} "
            f"(Kendall's τ {tau.value:.2f}, 95 % interval {tau.low:.2f} to {tau.high:.2f}, "
            f"{tau.pairs} designs); accuracy varies by ±{self.deviation:.3f} between the two, so "
            f"{tied}."
        )


def compare(
    low_budget: str,
    high_budget: str,
    x: Mapping[int, float],
    y: Mapping[int, float],
    records: Mapping[int, TrialRecord],
    seed: int = 0,
    low_records: Mapping[int, TrialRecord] | None = None,
) -> Comparison:
    """Two budgets compared.

    Args:
        x, y: trial number → accuracy_score at the low and the high budget.
        records: by number, for all of `x`; scored as at the high budget.
        low_records: the same as scored at the low budget, where that is a study's final one; None
            for two rungs, whose scores are of one kind.
    """
    both = sorted(set(x) & set(y))
    xs, ys = np.array([x[n] for n in both]), np.array([y[n] for n in both])
    slope, intercept, deviation = fit_line(xs, ys)
    able = [n for n in sorted(x) if records[n].why_nothing_learned() is None] or sorted(x)
    tied, spread, low_spread = 0, math.nan, math.nan
    if deviation >= 0:
        accuracy = {n: slope * x[n] + intercept for n in able}
        scores = {n: records[n].score_at(accuracy[n]) for n in accuracy}
        best = max(scores, key=lambda n: scores[n])
        spread = abs(records[best].score_slope(accuracy[best])) * deviation
        tied = tied_with_best(np.array(list(scores.values())), spread)
        low_spread = spread
        if low_records is not None:
            rise = abs(low_records[best].score_slope(x[best]))
            low_spread = rise * deviation / max(slope, MIN_SLOPE)
    return Comparison(
        low_budget,
        high_budget,
        np.array(both, dtype=int),
        xs,
        ys,
        deviation,
        spread,
        low_spread,
        tied,
        len(able),
        seed,
    )


def comparisons(
    records: Sequence[TrialRecord], retrained: Mapping[int, float], seed: int = 0
) -> list[Comparison]:
    """Each rung with the next one, and the last one with the retrains if there are any.

    Args:
        retrained: trial number → accuracy_score of its retrain on the hold-out.
    """
    by_epoch: dict[int, dict[int, float]] = {}
    for record in records:
        for epoch in record.epochs:
            if (accuracy := epoch.accuracy_score) is not None:
                by_epoch.setdefault(epoch.epoch, {})[record.number] = accuracy
    by_number = {record.number: record for record in records}
    epochs = sorted(by_epoch)
    results = [
        compare(f"epoch {a}", f"epoch {b}", by_epoch[a], by_epoch[b], by_number, seed)
        for a, b in itertools.pairwise(epochs)
    ]
    if epochs and retrained:
        last = epochs[-1]
        results.append(
            compare(
                f"the proxy (epoch {last})",
                "the retrain",
                by_epoch[last],
                retrained,
                {number: record.without_growth for number, record in by_number.items()},
                seed,
                low_records=by_number,
            )
        )
    return results


def score_deviation(results: Sequence[Comparison]) -> tuple[float | None, str]:
    """Standard deviation of the score of a completed trial, and what it was estimated from.

    From the retrains where there are enough; else from the change of accuracy up to the last rung,
    which is larger than that between two trainings. None where neither is known.
    """
    for result in reversed(results):
        if not np.isnan(result.low_score_deviation):
            return (
                result.low_score_deviation,
                f"between {result.low_budget} and {result.high_budget}",
            )
    return None, "no budget was compared"
