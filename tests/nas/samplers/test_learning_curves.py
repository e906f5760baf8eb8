"""The joint model of learning curves."""

import math

import numpy as np
import pytest

from nas.samplers import learning_curves
from nas.samplers.learning_curves import LearningCurves, Observations

LAST = 12


def curves(inputs: np.ndarray) -> dict[int, np.ndarray]:
    """Accuracies after epochs 2, 6, 12 of designs whose first feature decides."""
    final = 0.15 + 0.3 * inputs[:, 0]
    return {2: 0.2 * final, 6: 0.7 * final, LAST: final}


def observe(accuracies: dict[int, np.ndarray], looks: dict[int, int]) -> Observations:
    """Of each design in `looks` all results up to that epoch."""
    rows = [
        (design, epoch, accuracy[design])
        for design, until in looks.items()
        for epoch, accuracy in accuracies.items()
        if epoch <= until
    ]
    design, epoch, accuracy = map(np.array, zip(*rows))
    return Observations(design, epoch.astype(float), accuracy)


def test_the_posterior_is_that_of_the_closed_form():
    """All latent values and observations in one covariance, term by term, and conditioned."""
    rng = np.random.default_rng(0)
    inputs = rng.random((5, 3))
    seen = observe(curves(inputs), {0: 12, 1: 6, 2: 2})
    draw = learning_curves._Hyperparameters.draw(3, rng)

    def covariance(one, t, other, u):
        a, b = inputs[one] - 0.5, inputs[other] - 0.5
        r = math.sqrt(5 * sum(p * (x - y) ** 2 for p, x, y in zip(draw.precision, a, b)))
        matern = (1 + r + r * r / 3) * math.exp(-r)
        product = sum(p * x * y for p, x, y in zip(draw.precision, a, b))
        linear = product / (0.25 * draw.precision.sum())
        between = (1 - draw.linear) * matern + draw.linear * linear
        distance = abs(math.log(t / u))
        changing = math.exp(-distance / draw.length)
        return (
            learning_curves.CURVE_STD**2 * math.exp(-distance / learning_curves.CURVE_LENGTH)
            + between * (draw.constant**2 + draw.changing**2 * changing)
            + (one == other) * draw.own**2 * changing
        )

    looks = list(zip(seen.design, seen.epoch))
    points = [*looks, *((design, float(LAST)) for design in range(5))]
    full = np.array([[covariance(*p, *q) for q in points] for p in points])
    count = len(looks)
    noise = [draw.noise(np.array([t]), LAST)[0] ** 2 for _, t in looks]
    inverse = np.linalg.inv(full[:count, :count] + np.diag(noise))
    targets = np.log(seen.accuracy + learning_curves.OFFSET) - learning_curves.MEAN
    expected = full[count:, :count] @ inverse @ targets
    spread = full[count:, count:] - full[count:, :count] @ inverse @ full[:count, count:]

    model = LearningCurves(inputs, seen, LAST, np.random.default_rng(1))
    mean, root = model._posterior(draw)
    assert mean == pytest.approx(expected)
    assert root @ root.T == pytest.approx(spread + learning_curves.JITTER * np.eye(5), abs=1e-8)


def test_noise_falls_from_the_first_epoch_to_the_last():
    draw = learning_curves._Hyperparameters.draw(3, np.random.default_rng(0))
    noise = draw.noise(np.arange(1.0, LAST + 1), LAST)
    assert (noise[0], noise[-1]) == pytest.approx((draw.early_noise, draw.late_noise))
    assert (np.diff(noise) < 0).all() or draw.early_noise <= draw.late_noise


def test_growth_and_features_are_learnt():
    rng = np.random.default_rng(2)
    inputs = rng.random((40, 5))
    accuracies = curves(inputs)
    seen = observe(accuracies, dict.fromkeys(range(12), 12) | dict.fromkeys(range(12, 24), 2))
    samples = LearningCurves(inputs, seen, LAST, rng).sample(288, rng)
    assert samples.shape == (288, 40)
    assert ((samples >= 0) & (samples <= 1)).all()
    middle, spread = np.median(samples, axis=0), samples.std(axis=0)
    truth = accuracies[LAST]
    assert np.abs(middle - truth)[:12].max() < 0.03  # trained in full
    assert np.abs(middle - truth)[12:24].mean() < 0.05  # seen at a fifth of it
    assert np.corrcoef(middle[24:], truth[24:])[0, 1] > 0.9  # never seen
    assert spread[:12].mean() < spread[12:24].mean() < spread[24:].mean()
    inside = np.abs(samples[:, 12:] - middle[12:]).mean(axis=0) * 3 > np.abs(middle - truth)[12:]
    assert inside.mean() > 0.9


def test_without_results_only_the_priors_speak():
    rng = np.random.default_rng(3)
    nothing = Observations(np.zeros(0, int), np.zeros(0), np.zeros(0))
    samples = LearningCurves(rng.random((4, 2)), nothing, LAST, rng).sample(800, rng)
    assert samples.std(axis=0).min() > 0.1


def test_many_designs_are_weighed_by_some_of_them():
    rng = np.random.default_rng(4)
    inputs = rng.random((100, 2))
    seen = observe(curves(inputs), dict.fromkeys(range(100), 6))
    some = seen.of_designs(rng, 10)
    assert len(np.unique(some.design)) == 10 and len(some.design) == 20
    assert seen.of_designs(rng, 100) is seen
