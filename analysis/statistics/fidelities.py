"""What trainings at small budgets say about larger ones, through rounds of growing budgets.

From one round to the next, the log-odds of accuracy follow a line with a normal residual: growth,
a slope, and a dependence on cost, by which short trainings wrong large or small designs. It is a
Bayesian regression with a normal-inverse-gamma prior (Gelman et al., Bayesian Data Analysis, ch.
14), so that rounds with few designs, or none yet, are predicted with honest uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.statistics.pareto import dominated
from trials.growth import Growth

MARGIN = 0.005
"""Accuracies are kept this far from 0 and 1, where log-odds end."""
PRIOR_MEAN = np.array([0.0, 1.0, 0.0])
"""Of growth, slope, and change per factor 10 of MACs, if no growth is known."""
PRIOR_STD = np.array([1.5, 0.3, 0.3])
RESIDUAL = 0.2
"""Prior standard deviation of the residual: 0.05 of accuracy around 0.6."""
RESIDUAL_WEIGHT = 4
"""Designs that the prior of the residual counts as much as."""
DRAWS = 2000


@dataclass(frozen=True)
class Line:
    """Draws from the posterior of the line between two rounds."""

    coefficients: np.ndarray
    """float [draws, 3], of growth, slope and log10 of MACs."""
    residual: np.ndarray
    """float [draws], standard deviation."""


def posterior(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    draws: int = DRAWS,
    prior: np.ndarray = PRIOR_MEAN,
) -> Line:
    """The line through what is known.

    Args:
        x: float [n, 3]: 1, log-odds in the earlier round, log10 of MACs, both centred; n may be 0.
        y: float [n]: log-odds in the later round.
        prior: float [3], mean of the coefficients.
    """
    precision = np.diag((RESIDUAL / PRIOR_STD) ** 2)  # in units of the residual's variance
    after = precision + x.T @ x
    covariance = np.linalg.inv(after)
    mean = covariance @ (precision @ prior + x.T @ y)
    weight = RESIDUAL_WEIGHT + len(y)
    squares = (
        RESIDUAL_WEIGHT * RESIDUAL**2 + y @ y + prior @ precision @ prior - mean @ after @ mean
    )
    residual = np.sqrt(squares / rng.chisquare(weight, draws))
    noise = rng.standard_normal((draws, 3)) @ np.linalg.cholesky(covariance).T
    return Line(mean + residual[:, None] * noise, residual)


def sample_last(
    accuracy: np.ndarray,
    macs: np.ndarray,
    noise: float,
    *,
    growth: Growth | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> np.ndarray:
    """Draws of the accuracy that each design would have in the last round.

    Args:
        accuracy: float [designs, rounds], accuracy score in [0, 1] by the round, smallest budget
            first; NaN where a design was not trained. All are known in the first.
        macs: float [designs].
        noise: standard deviation of an accuracy in the last round between repetitions.
        growth: from the first round to the last, as measured before: the mean of the prior, an
            equal part for each step.

    Returns:
        float [draws, designs], in [0, 1].
    """
    rng = np.random.default_rng(seed)
    known = ~np.isnan(accuracy)
    odds = log_odds(accuracy)
    decades = np.log10(macs) - np.log10(macs).mean()
    prior = PRIOR_MEAN.copy()
    if growth is not None:
        gain = np.array([growth.of(macs).mean(), growth.per_decade])
        prior[[0, 2]] = gain / max(accuracy.shape[1] - 1, 1)
    current = np.repeat(odds[None, :, 0], draws, axis=0)
    for later in range(1, accuracy.shape[1]):
        earlier = later - 1
        seen = odds[known[:, earlier], earlier]
        centre = seen.mean() if len(seen) else current.mean()  # none before the round is trained
        both = known[:, earlier] & known[:, later]
        x = np.stack([np.ones(both.sum()), odds[both, earlier] - centre, decades[both]], axis=1)
        line = posterior(x, odds[both, later] - centre, rng, draws, prior)
        gained, slope, by_cost = line.coefficients.T[:, :, None]
        predicted = gained + slope * (current - centre) + by_cost * decades + centre
        predicted += line.residual[:, None] * rng.standard_normal(predicted.shape)
        current = np.where(known[:, later], odds[:, later], predicted)
    last = 1 / (1 + np.exp(-current)) + noise * rng.standard_normal(current.shape)
    return np.clip(last, 0.0, 1.0)


def log_odds(accuracy: np.ndarray) -> np.ndarray:
    """Of accuracies in [0, 1], which are kept MARGIN away from both ends; NaN stays NaN."""
    share = np.clip(accuracy, MARGIN, 1 - MARGIN)
    return np.log(share / (1 - share))


def shares_of_best(scores: np.ndarray, count: int = 1) -> np.ndarray:
    """The probability of each design to be among the best `count`: float [designs].

    Args:
        scores: float [draws, designs].
    """
    count = min(count, scores.shape[1])
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    return np.bincount(best.ravel(), minlength=scores.shape[1]) / len(scores)


def shares_of_front(accuracy: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The probability of each design to be on the front of accuracy and cost: float [designs].

    Args:
        accuracy: float [draws, designs].
        cost: float [designs], less is better.
    """
    fronts = [~dominated(np.stack([row, -cost], axis=1)) for row in accuracy]
    return np.mean(fronts, axis=0)


def most_promising(best: np.ndarray, front: np.ndarray, count: int) -> list[int]:
    """Indices of `count` designs, most promising first: two of three by their probability to be
    among the best, every third by that to be on the front.

    Args:
        best, front: float [designs].
    """
    by_best, by_front = (list(np.argsort(-shares, kind="stable")) for shares in (best, front))
    chosen: list[int] = []
    while len(chosen) < min(count, len(best)):
        ranking = by_front if len(chosen) % 3 == 2 else by_best
        chosen.append(int(next(index for index in ranking if index not in chosen)))
    return chosen
