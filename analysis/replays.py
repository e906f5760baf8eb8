"""What replays of a search on a table of trained designs tell: how soon it finds how much. Numbers
alone, no drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.correlation import Correlation, rank_correlation
from analysis.pareto import running_fronts

RESAMPLES = 2000


@dataclass(frozen=True)
class Truth:
    """What the table tells of its designs."""

    accuracy: np.ndarray
    """float [rows, E], accuracy score each time it was measured."""
    speed: np.ndarray
    """float [rows], speed score."""
    epochs: tuple[int, ...]
    """The E epochs of `accuracy`, ascending; the last one is the full budget."""

    @property
    def full(self) -> int:
        return self.epochs[-1]

    @property
    def scores(self) -> np.ndarray:
        """float [rows, E]."""
        return self.speed[:, None] + 2 * self.accuracy

    @property
    def score(self) -> np.ndarray:
        """float [rows], at the full budget."""
        return self.scores[:, -1]


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
        value, low, high = (
            f"{v:.{digits}f}" if math.isfinite(v) else "never"
            for v in (self.value, self.low, self.high)
        )
        return f"{value} ({low}–{high})" if (low, high) != (value, value) else value


def best_so_far(play: Play, truth: Truth) -> np.ndarray:
    """Best score of the trials completed by each entry: float [N], -inf before the first."""
    return np.maximum.accumulate(np.where(play.epoch == truth.full, truth.score[play.row], -np.inf))


def hypervolume_so_far(play: Play, truth: Truth) -> np.ndarray:
    """Area under the front of the trials completed by each entry: float [N], 0 before the first."""
    points = np.stack([truth.accuracy[:, -1], truth.speed], axis=1)[play.row]
    return running_fronts(np.where((play.epoch == truth.full)[:, None], points, 0.0))[0]


def picks(play: Play, truth: Truth) -> np.ndarray:
    """Full-budget score of what a search stopped at each entry would hand over: of the trials
    trained longest the one with the best score. float [N]."""
    best, found, real = (0, -np.inf), [], -np.inf
    for row, epoch in zip(play.row, play.epoch):
        seen = (int(epoch), float(truth.scores[row, truth.epochs.index(epoch)]))
        if seen > best:
            best, real = seen, float(truth.score[row])
        found.append(real)
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
    return Play(
        spent=epochs * np.arange(1, count + 1), row=np.array(order), epoch=np.full(count, epochs)
    )


def lost_by_keeping(cheap: np.ndarray, dear: np.ndarray, kept: int) -> float:
    """How much worse the best of the `kept` best at a cheap budget is at the dear one than the best
    of all there (top-k regret).

    Args:
        cheap, dear: float [rows].
    """
    top = np.argsort(-np.asarray(cheap), kind="stable")[:kept]
    return float(np.max(dear) - np.max(np.asarray(dear)[top]))


@dataclass(frozen=True)
class Outcome:
    """What many searches of one kind came to."""

    to_goal: Estimate
    """Epochs spent until the goal."""
    to_percentile: Estimate
    score: Estimate
    """Best of the completed trials when `at` epochs were spent."""
    hypervolume: Estimate
    """Likewise."""
    pick: Estimate
    """Full-budget score of what the search hands over in the end."""


def outcome(
    plays: Sequence[Play], truth: Truth, *, goal: float, percentile: float, at: int
) -> Outcome:
    """What searches of one kind came to.

    Args:
        goal, percentile: scores to be reached.
        at: epochs spent.
    """
    best = [best_so_far(play, truth) for play in plays]
    there = np.array([at])
    return Outcome(
        to_goal=median(np.array([spent_until(*pair, goal) for pair in zip(plays, best)])),
        to_percentile=median(
            np.array([spent_until(*pair, percentile) for pair in zip(plays, best)])
        ),
        score=median(np.array([on_grid(*pair, there)[0] for pair in zip(plays, best)])),
        hypervolume=median(
            np.array([on_grid(play, hypervolume_so_far(play, truth), there)[0] for play in plays])
        ),
        pick=median(np.array([picks(play, truth)[-1] for play in plays])),
    )


def curves(plays: Sequence[Play], truth: Truth, grid: np.ndarray) -> tuple[Estimate, Estimate]:
    """Medians of best score and hypervolume at `grid` ([G], epochs spent)."""
    return (
        median(np.stack([on_grid(p, best_so_far(p, truth), grid) for p in plays])),
        median(np.stack([on_grid(p, hypervolume_so_far(p, truth), grid) for p in plays])),
    )


@dataclass(frozen=True)
class Rung:
    """How well a budget tells what the full one will."""

    epoch: int
    kendall: Correlation
    spearman: Correlation
    """Of the accuracy scores."""
    lost: float
    """Score lost by keeping only the best third at this epoch (by score)."""


def rungs(truth: Truth) -> list[Rung]:
    """Each measured epoch against the full budget."""
    third = max(1, len(truth.speed) // 3)
    return [
        Rung(
            epoch,
            rank_correlation(truth.accuracy[:, place], truth.accuracy[:, -1]),
            rank_correlation(truth.accuracy[:, place], truth.accuracy[:, -1], "spearman"),
            lost_by_keeping(truth.scores[:, place], truth.score, third),
        )
        for place, epoch in enumerate(truth.epochs[:-1])
    ]


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
