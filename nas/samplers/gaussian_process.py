"""A Gaussian process over features in [0, 1]: mean and uncertainty of what was not yet measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

FIT_AT_MOST = 100
"""Points that its hyperparameters are fitted to; all points count in the predictions."""
CAUTION = 5
"""How many trials it takes until they are believed about the way from one rung to the next; until
then accuracies are thought to grow in proportion."""


class GaussianProcess:
    """Regression with a Matérn-5/2 kernel, one length a feature (Rasmussen & Williams 2006).

    The hyperparameters are those of highest posterior density: log-normal priors, of which those
    on the lengths say that most features matter little.

    Args:
        inputs: float [N, D], each in [0, 1].
        values: float [N], any scale.
        rng: chooses the points that hyperparameters are fitted to, where there are many.
    """

    def __init__(self, inputs: np.ndarray, values: np.ndarray, rng: np.random.Generator):
        self._shift, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._inputs, targets = inputs, (values - self._shift) / self._scale
        some = np.arange(len(inputs))
        if len(some) > FIT_AT_MOST:
            some = np.sort(rng.choice(some, FIT_AT_MOST, replace=False))
        self._theta = _fit(inputs[some], targets[some])
        covariance = _kernel(inputs, inputs, self._theta)
        covariance[np.diag_indices_from(covariance)] += math.exp(self._theta[-1])
        self._factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(self._factor, targets)

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (without the noise of a measurement): float [M] each."""
        cross = _kernel(inputs, self._inputs, self._theta)
        mean = cross @ self._weights
        explained = solve_triangular(self._factor[0], cross.T, lower=True)
        variance = math.exp(self._theta[-2]) - (explained**2).sum(axis=0)
        return (
            mean * self._scale + self._shift,
            np.sqrt(np.maximum(variance, 1e-12)) * self._scale,
        )


def at_full_budget(results: Sequence[Mapping[int, float]]) -> np.ndarray:
    """Each trial's accuracy at the highest rung known of any, as its own last result foretells it.

    From each rung to the next by the line through the trials that have both. Which trials go on is
    decided by their results at the lower rung, and that leaves a regression on those unbiased;
    means of rungs would not be, as the survivors are the better ones.

    Args:
        results: of each trial, accuracy by epoch, at least one.

    Returns:
        float [N].
    """
    last = np.array([max(result) for result in results])
    moved = np.array([result[epoch] for result, epoch in zip(results, last)])
    for lower, upper in itertools.pairwise(sorted(set().union(*results))):
        pairs = [
            (result[lower], result[upper])
            for result in results
            if lower in result and upper in result
        ]
        if not pairs:
            continue
        x, y = np.array(pairs).T
        growth = y.mean() / x.mean() if x.mean() > 0 else 1.0
        prior = CAUTION * np.var([result[lower] for result in results if lower in result])
        rise = (x - x.mean()) @ (y - y.mean()) + growth * prior
        scatter = (x - x.mean()) @ (x - x.mean()) + prior
        slope = max(rise / scatter, 0.0) if scatter > 0 else growth
        below = last <= lower
        moved[below] = y.mean() + slope * (moved[below] - x.mean())
    return moved


# theta: log of 1/length² for each feature, log of the signal's and of the noise's variance.


def _priors(features: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of theta's normal priors."""
    mean, spread = np.zeros(features + 2), np.full(features + 2, 2.0)
    mean[:features] = -math.log(max(features, 1)) + 0.5  # distances stay near 1 with many features
    spread[-2], mean[-1] = 0.5, -4.0
    return mean, spread


def _fit(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    mean, spread = _priors(inputs.shape[1])
    gaps = (inputs[:, None, :] - inputs[None, :, :]) ** 2
    bounds = [(m - 6, m + 6) for m in mean[:-1]] + [(math.log(1e-5), 1.0)]
    found = minimize(
        _loss,
        mean,
        args=(gaps, targets, mean, spread),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 20},
    )
    return found.x


def _loss(
    theta: np.ndarray, gaps: np.ndarray, targets: np.ndarray, mean: np.ndarray, spread: np.ndarray
) -> tuple[float, np.ndarray]:
    """Negative log posterior and its gradient.

    Args:
        gaps: float [N, N, D], squared differences of each feature.
    """
    precisions, signal, noise = np.exp(theta[:-2]), math.exp(theta[-2]), math.exp(theta[-1])
    root = np.sqrt(5.0 * (gaps @ precisions))
    decay = np.exp(-root)
    kernel = signal * (1.0 + root + root**2 / 3.0) * decay
    factor = cho_factor(kernel + (noise + 1e-8) * np.eye(len(targets)), lower=True)
    inverse = cho_solve(factor, np.eye(len(targets)))
    weights = inverse @ targets
    off = (theta - mean) / spread
    value = 0.5 * targets @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * (off**2).sum()
    outer = 0.5 * (inverse - np.outer(weights, weights))  # d value / d covariance
    by_distance = outer * (-5.0 / 6.0 * signal * (1.0 + root) * decay)
    gradient = np.concatenate(
        [
            precisions * np.tensordot(by_distance, gaps, axes=2),
            [(outer * kernel).sum(), noise * np.trace(outer)],
        ]
    )
    return float(value), gradient + off / spread


def _kernel(one: np.ndarray, other: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Matérn-5/2 covariance, float [N, M]."""
    scale = np.exp(0.5 * theta[:-2])
    one, other = one * scale, other * scale
    squared = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2.0 * one @ other.T
    root = np.sqrt(5.0 * np.maximum(squared, 0.0))
    return math.exp(theta[-2]) * (1.0 + root + root**2 / 3.0) * np.exp(-root)
