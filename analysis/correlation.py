"""Whether a cheap budget ranks designs as a dear one does. Numbers alone, no drawing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trials.record import TrialRecord

RESAMPLES = 500
MIN_PAIRS = 4
"""Fewer pairs have so few orders that an interval tells nothing."""


@dataclass(frozen=True)
class Correlation:
    kind: str
    """kendall or spearman."""
    value: float
    """In [-1, 1]; nan where one side does not vary."""
    low: float
    high: float
    """95 % interval by bootstrap over the pairs; nan below MIN_PAIRS."""
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

    def of(x: np.ndarray, y: np.ndarray) -> float:
        varies = len(x) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0
        return float(measure(x, y).statistic) if varies else np.nan

    low = high = np.nan
    if len(x) >= MIN_PAIRS:
        rng = np.random.default_rng(seed)
        drawn = [of(x[i], y[i]) for i in rng.integers(0, len(x), (resamples, len(x)))]
        drawn = np.array([value for value in drawn if not np.isnan(value)])
        if len(drawn):
            low, high = (float(v) for v in np.quantile(drawn, [0.025, 0.975]))
    return Correlation(kind, of(x, y), low, high, len(x))


def best_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least squares of `y` on `x`: slope, intercept, and the standard deviation of the residuals
    with the line's two degrees of freedom taken off; nan below MIN_PAIRS or where `x` does not
    vary.

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
    """How many of `scores` a difference as large as theirs to the best does not tell from it: less
    than 1.96 × √2 × `deviation`, that of one score. At least 1, the best itself; 0 of none.

    Args:
        scores: float [N].
    """
    scores = np.asarray(scores, dtype=float)
    if not len(scores):
        return 0
    return int((scores >= scores.max() - 1.96 * 2**0.5 * deviation).sum())


@dataclass(frozen=True)
class Comparison:
    """The same designs at two budgets."""

    cheap: str
    dear: str
    numbers: np.ndarray
    """int [N], trials that have both."""
    x: np.ndarray
    y: np.ndarray
    """float [N], accuracy_score at the cheap and at the dear budget. Not the score: its speed term
    is the same on both sides and would make any budget look right."""
    kendall: Correlation
    spearman: Correlation
    deviation: float
    """Of the accuracy scores at the dear budget about their `best_line`."""
    tied: int
    """Of `considered`, those whose score, as the cheap budget foretells it for the dear one, cannot
    be told from the best; 0 where that is not known."""
    considered: int

    @property
    def sentence(self) -> str:
        """What it means for the one who chooses."""
        tau = self.kendall
        if tau.pairs < MIN_PAIRS or np.isnan(tau.value):
            return (
                f"Designs known at both {self.cheap} and {self.dear}: {tau.pairs}, too few to "
                "tell whether the one ranks as the other does."
            )
        worth = (
            "ranks the designs as"
            if tau.low > 0.6
            else "ranks the designs roughly as"
            if tau.low > 0.2
            else "tells something of how designs rank at"
            if tau.low > 0
            else "does not reliably rank the designs as"
        )
        tied = (
            f"the top {self.tied} of {self.considered} cannot be told apart at this budget"
            if self.tied > 1
            else f"the best of {self.considered} stands out at this budget"
        )
        return (
            f"{self.cheap[0].upper()}{self.cheap[1:]} {worth} {self.dear} (Kendall's τ "
            f"{tau.value:.2f}, 95 % interval {tau.low:.2f} to {tau.high:.2f}, {tau.pairs} "
            f"designs); accuracy scatters by ±{self.deviation:.3f} between the two, so "
            f"{tied}."
        )


def compare(
    cheap: str,
    dear: str,
    x: Mapping[int, float],
    y: Mapping[int, float],
    speed: Mapping[int, float],
    seed: int = 0,
) -> Comparison:
    """Two budgets compared.

    Args:
        x, y: trial number → accuracy_score at the cheap and the dear budget.
        speed: trial number → speed_score, for all of `x`.
    """
    both = sorted(set(x) & set(y))
    xs, ys = np.array([x[n] for n in both]), np.array([y[n] for n in both])
    slope, intercept, deviation = best_line(xs, ys)
    expected = [speed[n] + 2 * (slope * x[n] + intercept) for n in sorted(x)]
    tied = tied_with_best(np.array(expected), 2 * deviation) if deviation >= 0 else 0
    return Comparison(
        cheap,
        dear,
        np.array(both, dtype=int),
        xs,
        ys,
        rank_correlation(xs, ys, seed=seed),
        rank_correlation(xs, ys, "spearman", seed=seed),
        deviation,
        tied,
        len(x),
    )


def comparisons(
    records: Sequence[TrialRecord], retrained: Mapping[int, float], seed: int = 0
) -> list[Comparison]:
    """Each rung with the next one, and the last with the retrains where there are any.

    Args:
        retrained: trial number → accuracy_score of its retrain on the hold-out.
    """
    by_epoch: dict[int, dict[int, float]] = {}
    for record in records:
        for epoch in record.epochs:
            if epoch.ap is not None:
                by_epoch.setdefault(epoch.epoch, {})[record.number] = epoch.accuracy_score
    speed = {record.number: record.speed_score for record in records}
    epochs = sorted(by_epoch)
    found = [
        compare(f"epoch {a}", f"epoch {b}", by_epoch[a], by_epoch[b], speed, seed)
        for a, b in itertools.pairwise(epochs)
    ]
    if epochs and retrained:
        last = epochs[-1]
        found.append(
            compare(
                f"the proxy (epoch {last})", "the retrain", by_epoch[last], retrained, speed, seed
            )
        )
    return found


def score_deviation(found: Sequence[Comparison]) -> tuple[float, str]:
    """The deviation to give a score of a completed trial, and what it was told from.

    From the retrains where there are enough; else from how accuracy moves to the last rung, which
    is more than it would scatter in a second training. nan where neither is known.
    """
    for comparison in reversed(found):
        if not np.isnan(comparison.deviation):
            return 2 * comparison.deviation, f"between {comparison.cheap} and {comparison.dear}"
    return np.nan, "no budget was compared"
