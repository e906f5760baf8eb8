"""Searches replayed on a table of trained designs: score and hypervolume by epochs spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from analysis.statistics.correlation import Correlation, rank_correlation
from analysis.statistics.pareto import running_fronts
from analysis.statistics.progress import reach

RESAMPLES = 2000


@dataclass(frozen=True)
class Truth:
    """The true values of the table's designs."""

    accuracy: np.ndarray
    """float [rows, E], accuracy score at each evaluated epoch."""
    speed: np.ndarray
    """float [rows], speed score."""
    scores: np.ndarray
    """float [rows, E]."""
    epochs: tuple[int, ...]
    """The E epochs of `accuracy` and `scores`, ascending; the last one is the full budget."""

    @property
    def full(self) -> int:
        return self.epochs[-1]

    @property
    def score(self) -> np.ndarray:
        """float [rows], at the full budget."""
        return self.scores[:, -1]


@dataclass(frozen=True)
class Play:
    """One search on a table: an entry for each time that a trial reached a rung or its end."""

    spent: np.ndarray
    """int [N], epochs trained by then, all trials together; ascending."""
    row: np.ndarray
    """int [N], the trial's row of the table."""
    epoch: np.ndarray
    """int [N], epochs of this trial by then."""


@dataclass(frozen=True)
class Estimate:
    """A median over runs with its 95 % interval, by bootstrap over the runs (percentiles)."""

    value: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """Such as "120 (108–144)", with "never" for infinity."""
        value, low, high = (
            f"{v:.{digits}f}" if math.isfinite(v) else "never"
            for v in (self.value, self.low, self.high)
        )
        return f"{value} ({low}–{high})" if (low, high) != (value, value) else value


class Band(NamedTuple):
    """An `Estimate` at each point of a grid."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    """float [G] each."""


def best_so_far(play: Play, truth: Truth) -> np.ndarray:
    """Best score of the trials completed by each entry: float [N], -inf before the first."""
    return np.maximum.accumulate(np.where(play.epoch == truth.full, truth.score[play.row], -np.inf))


def hypervolume_so_far(play: Play, truth: Truth) -> np.ndarray:
    """Area under the front of the trials completed by each entry: float [N], 0 before the first."""
    points = np.stack([truth.accuracy[:, -1], truth.speed], axis=1)[play.row]
    return running_fronts(np.where((play.epoch == truth.full)[:, None], points, 0.0))[0]


def picks(play: Play, truth: Truth) -> np.ndarray:
    """Full-budget score of the trial that a search stopped at each entry would return: the one with
    the best score among those trained longest. float [N]."""
    best, selected, full_score = (0, -np.inf), [], -np.inf
    for row, epoch in zip(play.row, play.epoch):
        candidate = (int(epoch), float(truth.scores[row, truth.epochs.index(epoch)]))
        if candidate > best:
            best, full_score = candidate, float(truth.score[row])
        selected.append(full_score)
    return np.array(selected)


def spent_until(play: Play, values: np.ndarray, goal: float) -> float:
    """Epochs spent when `values` ([N], non-decreasing) reach `goal`; infinity if they never do."""
    spent = reach(values, play.spent, goal)
    return math.inf if spent is None else spent


def on_grid(play: Play, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """`values` ([N]) as a step function of the epochs spent, at `grid` ([G]); -inf before the first
    entry."""
    indices = np.searchsorted(play.spent, grid, side="right")
    return np.concatenate([[-np.inf], values])[indices]


def median(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Median over runs, [R]; values may be infinite."""
    value, low, high = (float(v) for v in medians(values, seed, resamples))
    return Estimate(value, low, high)


def medians(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Band:
    """Medians over runs, [R, ...]; values may be infinite.

    The bounds are not interpolated, as values may be infinite.
    """
    values = np.asarray(values, dtype=float)
    resampled = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    bootstrap = np.stack([np.median(values[rows], axis=0) for rows in resampled])
    low, high = np.quantile(bootstrap, [0.025, 0.975], axis=0, method="nearest")
    return Band(np.median(values, axis=0), low, high)


def best_of_draws(scores: np.ndarray, draws: int, share: float = 0.5) -> float:
    """Score that at least `share` of random searches have reached after `draws` different rows:
    exact, by counting subsets.

    Args:
        scores: float [rows].
    """
    ranked = -np.sort(-np.asarray(scores, dtype=float))
    rows = len(ranked)
    for rank in range(rows):
        missed = math.comb(rows - rank - 1, draws) / math.comb(rows, draws)
        if 1 - missed >= share:
            return float(ranked[rank])
    raise ValueError(f"{draws} draws are impossible from {rows} rows")


def in_order(order: Sequence[int], epochs: int) -> Play:
    """The search that trains rows in the given order, each for `epochs`, one after another."""
    count = len(order)
    return Play(
        spent=epochs * np.arange(1, count + 1), row=np.array(order), epoch=np.full(count, epochs)
    )


def top_k_regret(low_budget: np.ndarray, high_budget: np.ndarray, k: int) -> float:
    """What is lost by training only the `k` best at a low budget further: how much worse the best
    of them is at the high budget than the best of all.

    Args:
        low_budget, high_budget: scores, float [rows].
    """
    top = np.argsort(-np.asarray(low_budget), kind="stable")[:k]
    return float(np.max(high_budget) - np.max(np.asarray(high_budget)[top]))


@dataclass(frozen=True)
class Outcome:
    """The results of many searches of one kind."""

    to_goal: Estimate
    to_percentile: Estimate
    """Epochs spent until the goal and the percentile."""
    score: Estimate
    hypervolume: Estimate
    """Of the completed trials when `at` epochs were spent: the best score, and the hypervolume."""
    pick: Estimate
    """Full-budget score of the trial that the search returns in the end."""


def outcome(
    plays: Sequence[Play], truth: Truth, *, goal: float, percentile: float, at: int
) -> Outcome:
    """The results of searches of one kind.

    Args:
        goal, percentile: scores to be reached.
        at: epochs spent.
    """
    best = [best_so_far(play, truth) for play in plays]
    grid = np.array([at])
    return Outcome(
        to_goal=median(np.array([spent_until(*pair, goal) for pair in zip(plays, best)])),
        to_percentile=median(
            np.array([spent_until(*pair, percentile) for pair in zip(plays, best)])
        ),
        score=median(np.array([on_grid(*pair, grid)[0] for pair in zip(plays, best)])),
        hypervolume=median(
            np.array([on_grid(play, hypervolume_so_far(play, truth), grid)[0] for play in plays])
        ),
        pick=median(np.array([picks(play, truth)[-1] for play in plays])),
    )


def curves(plays: Sequence[Play], truth: Truth, grid: np.ndarray) -> tuple[Band, Band]:
    """Medians of best score and hypervolume at `grid` ([G], epochs spent)."""
    return (
        medians(np.stack([on_grid(p, best_so_far(p, truth), grid) for p in plays])),
        medians(np.stack([on_grid(p, hypervolume_so_far(p, truth), grid) for p in plays])),
    )


@dataclass(frozen=True)
class Rung:
    """How well a budget predicts the full one."""

    epoch: int
    kendall: Correlation
    spearman: Correlation
    """Of the accuracy scores."""
    lost: float
    """Score lost by promoting only the best third at this epoch, see `top_k_regret`."""


def rungs(truth: Truth) -> list[Rung]:
    """Each evaluated epoch against the full budget."""
    third = max(1, len(truth.speed) // 3)
    return [
        Rung(
            epoch,
            rank_correlation(truth.accuracy[:, index], truth.accuracy[:, -1]),
            rank_correlation(truth.accuracy[:, index], truth.accuracy[:, -1], "spearman"),
            top_k_regret(truth.scores[:, index], truth.score, third),
        )
        for index, epoch in enumerate(truth.epochs[:-1])
    ]
