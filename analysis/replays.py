"""What replays of a search on a table of trained designs tell: how soon it finds how much. Numbers
alone, no drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.pareto import hypervolumes

RESAMPLES = 2000


@dataclass(frozen=True)
class Play:
    """One search on a table: an entry for each time that a trial came to a rung or to its end."""

    spent: np.ndarray
    """int [N], epochs that all trials together had been trained for by then; rising."""
    row: np.ndarray
    """int [N], row of the table that the trial is."""
    epoch: np.ndarray
    """int [N], epochs that this trial had been trained for by then."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, by bootstrap over the runs (percentiles)."""

    value: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """Such as "120 (108–144)"; "never" stands for infinity."""
        value, low, high = (f"{v:.{digits}f}" if math.isfinite(v) else "never"
                            for v in (self.value, self.low, self.high))
        return f"{value} ({low}–{high})" if (low, high) != (value, value) else value


def best_so_far(play: Play, scores: np.ndarray, full: int) -> np.ndarray:
    """Best score of the trials completed by each entry: float [N], -inf before the first.

    Args:
        scores: float [rows], at the full budget.
        full: epochs of the full budget.
    """
    return np.maximum.accumulate(np.where(play.epoch == full, scores[play.row], -np.inf))


def hypervolume_so_far(play: Play, points: np.ndarray, full: int) -> np.ndarray:
    """Area under the front of the trials completed by each entry: float [N], 0 before the first.

    Args:
        points: float [rows, 2], accuracy at the full budget and speed.
    """
    return hypervolumes(np.where((play.epoch == full)[:, None], points[play.row], 0.0))


def picks(play: Play, scores: np.ndarray) -> np.ndarray:
    """Full-budget score of what a search stopped at each entry would hand over: of the trials
    trained longest the one with the best score. float [N].

    Args:
        scores: float [rows, epochs], after each epoch; the last one is the full budget.
    """
    best, found = (0, -np.inf), []
    truth = -np.inf
    for row, epoch in zip(play.row, play.epoch):
        seen = (int(epoch), float(scores[row, epoch - 1]))
        if seen > best:
            best, truth = seen, float(scores[row, -1])
        found.append(truth)
    return np.array(found)


def spent_until(play: Play, values: np.ndarray, goal: float) -> float:
    """Epochs spent when `values` (rising, [N]) first are at least `goal`; infinity: never."""
    reached = int(np.searchsorted(values, goal))
    return float(play.spent[reached]) if reached < len(values) else math.inf


def on_grid(play: Play, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """`values` ([N]) as a step function of the epochs spent, at `grid` ([G]); -inf before the first
    entry."""
    places = np.searchsorted(play.spent, grid, side="right")
    return np.concatenate([[-np.inf], values])[places]


def median(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Of runs, [R] or [R, G] (then an Estimate of arrays [G]); values may be infinite."""
    values = np.asarray(values, dtype=float)
    drawn = _resampled(values, seed, resamples)
    low, high = _interval(drawn)
    return Estimate(_plain(np.median(values, axis=0)), _plain(low), _plain(high))


def ratio(of: np.ndarray, to: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Median of `of` over the median of `to`, float [R] and [S] above 0; the runs of the two are
    resampled apart."""
    of, to = np.asarray(of, dtype=float), np.asarray(to, dtype=float)
    # Infinity over infinity is not known: as bad as can be.
    quotients = (_resampled(of, seed, resamples), _resampled(to, seed + 1, resamples))
    drawn = np.where(np.isinf(quotients[0]), math.inf, quotients[0] / quotients[1])
    middle = np.median(of)
    low, high = _interval(drawn)
    return Estimate(math.inf if math.isinf(middle) else float(middle / np.median(to)),
                    _plain(low), _plain(high))


def best_of_draws(scores: np.ndarray, draws: int, share: float = 0.5) -> float:
    """What at least `share` of random searches have reached after `draws` different rows: exact,
    by counting subsets.

    Args:
        scores: float [rows].
    """
    ranked = -np.sort(-np.asarray(scores, dtype=float))
    rows = len(ranked)
    for rank in range(rows):
        missed = math.comb(rows - rank - 1, draws) / math.comb(rows, draws)
        if 1 - missed >= share:
            return float(ranked[rank])
    raise ValueError(f"{draws} draws of {rows} rows")


def in_order(order: Sequence[int], epochs: int) -> Play:
    """The search that trains rows in a given order, each for `epochs`, one after the other."""
    count = len(order)
    return Play(spent=epochs * np.arange(1, count + 1), row=np.array(order),
                epoch=np.full(count, epochs))


def lost_by_keeping(cheap: np.ndarray, dear: np.ndarray, kept: int) -> float:
    """How much worse the best of the `kept` best at a cheap budget is at the dear one than the best
    of all there (top-k regret).

    Args:
        cheap, dear: float [rows].
    """
    top = np.argsort(-np.asarray(cheap), kind="stable")[:kept]
    return float(np.max(dear) - np.max(np.asarray(dear)[top]))


def _resampled(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Medians of runs drawn with replacement, [resamples, …]."""
    chosen = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    return np.stack([np.median(values[some], axis=0) for some in chosen])


def _interval(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 % and 97.5 % of what was drawn; one of its values, as infinity cannot be interpolated."""
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0, method="nearest")
    return low, high


def _plain(value):
    return float(value) if np.ndim(value) == 0 else value
