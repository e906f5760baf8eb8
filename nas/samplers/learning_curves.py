"""A joint model of the learning curves of all designs: the accuracy of each after an epoch, given
results of any of them after any epochs.

log(accuracy + OFFSET) = common curve(t) + slope prior(design) + f(design) + g(design, t)
                         + own(design, t) + noise(t)

The prior, what earlier studies say, is known; its slope is learnt, around 1: where they are wrong
it becomes 0 or negative. All other terms are Gaussian processes: the common curve, g and own change
with log t as in an Ornstein-Uhlenbeck process, f and g are smooth and in part linear in the
design's features, own is what the features do not explain. Early looks are noisier. Hyperparameters
are not fitted, as a few trials say little about them: draws from their priors count by their
likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

OFFSET = 0.01
"""Of accuracies before the logarithm: below it a design has learned nothing."""
DRAWS = 48
"""Of the hyperparameters, from their priors."""
USED_DRAWS = 8
"""Those that samples are made with, drawn by their likelihood."""
MAX_WEIGHED = 60
"""Designs whose results the likelihood is computed from."""
JITTER = 1e-6
"""Added to variances, for Cholesky's sake."""
MEAN = math.log(0.2 + OFFSET)
SLOPE_STD = 1.0
"""Of the prior's slope, whose mean is 1."""
CURVE_STD, CURVE_LENGTH = 1.5, 2.0
"""Of the common curve, which may be nearly anything; the length is in log epochs."""


@dataclass(frozen=True)
class Observations:
    """Results of trials, each entry one look."""

    design: np.ndarray
    """int [N], a row of the inputs."""
    epoch: np.ndarray
    """float [N], from 1."""
    accuracy: np.ndarray
    """float [N], in [0, 1]."""

    def log_accuracy(self) -> np.ndarray:
        return np.log(self.accuracy + OFFSET)

    def of_designs(self, rng: np.random.Generator, most: int) -> Observations:
        """Those of at most `most` of the designs, chosen at random."""
        designs = np.unique(self.design)
        if len(designs) <= most:
            return self
        kept = np.isin(self.design, rng.choice(designs, most, replace=False))
        return Observations(self.design[kept], self.epoch[kept], self.accuracy[kept])


class LearningCurves:
    """The posterior over the accuracy of designs after the last epoch.

    Args:
        inputs: float [P, D] in [0, 1], the features of all designs, trained or not.
        observed: results of some of them, the rows of `inputs` in the order of their study.
        last: the last epoch.
        rng: draws the hyperparameters.
        prior: float [P], log accuracy that earlier studies expect, relative to an average design;
            none means that there are no such studies.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        observed: Observations,
        last: int,
        rng: np.random.Generator,
        prior: np.ndarray | None = None,
    ):
        self._inputs, self._observed, self._last = inputs, observed, last
        self._prior = np.zeros(len(inputs)) if prior is None else prior
        draws = [_Hyperparameters.draw(inputs.shape[1], rng) for _ in range(DRAWS)]
        weighed = observed.of_designs(rng, MAX_WEIGHED)
        logs = np.array([self._solve(draw, weighed)[2] for draw in draws])
        weights = np.exp(logs - logs.max())
        chosen = rng.choice(DRAWS, USED_DRAWS, p=weights / weights.sum())
        self._posteriors = [self._posterior(draws[i]) for i in np.unique(chosen)]
        self._counts = np.unique(chosen, return_counts=True)[1]

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Joint samples of the accuracy of all designs after the last epoch, float [N, P]; N is
        `count` rounded down to a multiple of USED_DRAWS."""
        samples = []
        for (mean, root), times in zip(self._posteriors, self._counts):
            normal = rng.standard_normal((times * (count // USED_DRAWS), len(mean)))
            samples.append(mean + normal @ root.T)
        return np.clip(np.exp(np.concatenate(samples) + MEAN) - OFFSET, 0.0, 1.0)

    def _solve(
        self, draw: _Hyperparameters, seen: Observations
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Cholesky factor of the covariance of observations, its inverse times them, and their
        log likelihood but for a constant."""
        inputs, prior = self._inputs[seen.design], self._prior[seen.design]
        targets = seen.log_accuracy() - MEAN - prior
        same = seen.design[:, None] == seen.design
        covariance = draw.covariance(
            draw.between(inputs, inputs), same, seen.epoch[:, None], seen.epoch
        )
        covariance += SLOPE_STD**2 * np.outer(prior, prior)
        covariance[np.diag_indices_from(covariance)] += draw.noise(seen.epoch, self._last) ** 2
        factor = np.linalg.cholesky(covariance)
        weights = cho_solve((factor, True), targets)
        return factor, weights, float(-0.5 * targets @ weights - np.log(np.diag(factor)).sum())

    def _posterior(self, draw: _Hyperparameters) -> tuple[np.ndarray, np.ndarray]:
        """Mean and root of the covariance after the last epoch, float [P] and [P, P]."""
        factor, weights, _ = self._solve(draw, self._observed)
        seen, inputs, last = self._observed, self._inputs, np.array(float(self._last))
        between, designs = draw.between(inputs, inputs), np.arange(len(inputs))
        cross = draw.covariance(
            between[:, seen.design], designs[:, None] == seen.design, last, seen.epoch
        )
        cross += SLOPE_STD**2 * np.outer(self._prior, self._prior[seen.design])
        explained = solve_triangular(factor, cross.T, lower=True)
        covariance = draw.covariance(between, np.eye(len(inputs), dtype=bool), last, last)
        covariance += SLOPE_STD**2 * np.outer(self._prior, self._prior)
        covariance -= explained.T @ explained
        covariance[np.diag_indices_from(covariance)] += JITTER
        return self._prior + cross @ weights, np.linalg.cholesky(covariance)


@dataclass(frozen=True)
class _Hyperparameters:
    precision: np.ndarray
    """float [D], 1 / length²."""
    linear: float
    """Share of the linear part in the variance of f and g, in [0, 1]."""
    constant: float
    """Standard deviation of f, in log accuracy."""
    changing: float
    """Of g."""
    own: float
    length: float
    """Log epochs over which g and own change."""
    late_noise: float
    early_noise: float
    """At the first epoch; in between it falls with the square root of the epoch."""

    @classmethod
    def draw(cls, features: int, rng: np.random.Generator) -> _Hyperparameters:
        def positive(median: float, spread: float) -> float:
            return median * math.exp(spread * rng.standard_normal())

        return cls(
            precision=np.exp(rng.normal(0.5 - math.log(max(features, 1)), 1.0, features)),
            linear=rng.random(),
            constant=positive(0.5, 0.4),
            changing=positive(0.4, 0.5),
            own=positive(0.1, 0.5),
            length=positive(1.5, 0.4),
            late_noise=positive(0.06, 0.4),
            early_noise=positive(0.4, 0.5),
        )

    def between(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Correlation of designs by their features, float [N, M]."""
        scale = np.sqrt(self.precision)
        one, other = (one - 0.5) * scale, (other - 0.5) * scale
        product = one @ other.T
        squared = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * product
        root = np.sqrt(5.0 * np.maximum(squared, 0.0))
        matern = (1.0 + root + root**2 / 3.0) * np.exp(-root)
        return (1 - self.linear) * matern + self.linear * product / (0.25 * self.precision.sum())

    def covariance(
        self, between: np.ndarray, same: np.ndarray, one: np.ndarray, other: np.ndarray
    ) -> np.ndarray:
        """Of log accuracies without noise, float [N, M].

        Args:
            between: as from `between`.
            same: bool [N, M], whether the designs are the same.
            one: their epochs, float [N, 1] or [].
            other: float [M] or [].
        """
        distance = np.abs(np.log(one) - np.log(other))
        changing = np.exp(-distance / self.length)
        return (
            CURVE_STD**2 * np.exp(-distance / CURVE_LENGTH)
            + between * (self.constant**2 + self.changing**2 * changing)
            + same * (self.own**2 * changing)
        )

    def noise(self, epoch: np.ndarray, last: int) -> np.ndarray:
        """Standard deviation of a look at an epoch, float [N]."""
        share = 1 / np.sqrt(epoch)
        end = 1 / math.sqrt(last)
        weight = (share - end) / (1 - end) if last > 1 else np.zeros_like(share)
        return self.late_noise + (self.early_noise - self.late_noise) * weight
