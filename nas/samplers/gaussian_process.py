"""A Gaussian process over features in [0, 1]: mean and uncertainty of unseen points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

MAX_FIT_POINTS = 100
"""Points that hyperparameters are fitted to; predictions use all points."""
PRIOR_WEIGHT = 5
"""Weight, in trials, of the prior for the line from one rung to the next: growth in proportion."""


class GaussianProcess:
    """Regression (Rasmussen & Williams 2006) with a Matérn-5/2 kernel, a length scale per feature.

    The hyperparameters maximise the posterior density under log-normal priors; those of the length
    scales assume that most features matter little.

    Args:
        inputs: float [N, D], each in [0, 1].
        values: float [N], any scale.
        rng: chooses the points that hyperparameters are fitted to, if there are many.
    """

    def __init__(self, inputs: np.ndarray, values: np.ndarray, rng: np.random.Generator):
        self._shift, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._inputs, targets = inputs, (values - self._shift) / self._scale
        subset = np.arange(len(inputs))
        if len(subset) > MAX_FIT_POINTS:
            subset = np.sort(rng.choice(subset, MAX_FIT_POINTS, replace=False))
        self._theta = _fit(inputs[subset], targets[subset])
        covariance = _kernel(inputs, inputs, self._theta)
        covariance[np.diag_indices_from(covariance)] += math.exp(self._theta[-1])
        self._factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(self._factor, targets)

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (without the noise of a measurement), float [M] each."""
        cross = _kernel(inputs, self._inputs, self._theta)
        mean = cross @ self._weights
        explained = solve_triangular(self._factor[0], cross.T, lower=True)
        variance = math.exp(self._theta[-2]) - (explained**2).sum(axis=0)
        return (
            mean * self._scale + self._shift,
            np.sqrt(np.maximum(variance, 1e-12)) * self._scale,
        )


def at_full_budget(results: Sequence[Mapping[int, float]]) -> np.ndarray:
    """Each trial's accuracy at the highest rung that any has reached, predicted from its last
    result.

    The prediction goes from rung to rung along the line fitted to the trials that have both.
    Promotion depends on the result at the lower rung alone, which leaves a regression on it
    unbiased; means of rungs would be biased, as the survivors are the better ones.

    Args:
        results: of each trial, accuracy by epoch, at least one.

    Returns:
        float [N].
    """
    last_epoch = np.array([max(result) for result in results])
    predicted = np.array([result[epoch] for result, epoch in zip(results, last_epoch)])
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
        prior = PRIOR_WEIGHT * np.var([result[lower] for result in results if lower in result])
        covariance = (x - x.mean()) @ (y - y.mean()) + growth * prior
        variance = (x - x.mean()) @ (x - x.mean()) + prior
        slope = max(covariance / variance, 0.0) if variance > 0 else growth
        below = last_epoch <= lower
        predicted[below] = y.mean() + slope * (predicted[below] - x.mean())
    return predicted


# theta: log of 1 / length scale² of each feature, log of the signal's and of the noise's variance.


def _priors(features: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of theta's normal priors."""
    mean, std = np.zeros(features + 2), np.full(features + 2, 2.0)
    mean[:features] = -math.log(max(features, 1)) + 0.5  # distances stay near 1 with many features
    std[-2], mean[-1] = 0.5, -4.0
    return mean, std


def _fit(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    mean, std = _priors(inputs.shape[1])
    gaps = (inputs[:, None, :] - inputs[None, :, :]) ** 2
    bounds = [(m - 6, m + 6) for m in mean[:-1]] + [(math.log(1e-5), 1.0)]
    result = minimize(
        _loss,
        mean,
        args=(gaps, targets, mean, std),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 20},
    )
    return result.x


def _loss(
    theta: np.ndarray, gaps: np.ndarray, targets: np.ndarray, mean: np.ndarray, std: np.ndarray
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
    z = (theta - mean) / std
    value = 0.5 * targets @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * (z**2).sum()
    outer = 0.5 * (inverse - np.outer(weights, weights))  # d value / d covariance
    by_distance = outer * (-5.0 / 6.0 * signal * (1.0 + root) * decay)
    gradient = np.concatenate(
        [
            precisions * np.tensordot(by_distance, gaps, axes=2),
            [(outer * kernel).sum(), noise * np.trace(outer)],
        ]
    )
    return float(value), gradient + z / std


def _kernel(one: np.ndarray, other: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Matérn-5/2 covariance, float [N, M]."""
    scale = np.exp(0.5 * theta[:-2])
    one, other = one * scale, other * scale
    squared = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2.0 * one @ other.T
    root = np.sqrt(5.0 * np.maximum(squared, 0.0))
    return math.exp(theta[-2]) * (1.0 + root + root**2 / 3.0) * np.exp(-root)
