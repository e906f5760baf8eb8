"""The parts of `frugal`: features, a Gaussian process, expected improvement."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from detector.config.detector import arch_hash
from nas.samplers import frugal, gaussian_process
from nas.samplers.features import features, matrix
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace
from trials.record import Cost, EpochResult, Status, TrialRecord

SPACE = SearchSpace.load(SPACES / "retina.yaml")


def features_of(params):
    detector, recipe = SPACE.resolve(params)
    return features(detector, recipe, Cost.of(detector))


def test_designs_differ_where_their_features_do():
    trial = RandomTrial("features")
    by_design = {}
    for _ in range(200):
        params = SPACE.suggest(trial) | {"recipe.optimizer.lr": 0.02}
        numbers = tuple(sorted(features_of(params).items()))
        by_design.setdefault(arch_hash(SPACE.resolve(params)[0]), set()).add(numbers)
    assert all(len(features) == 1 for features in by_design.values())
    assert len({next(iter(features)) for features in by_design.values()}) == len(by_design)


def test_features_in_numbers():
    detector, recipe = SPACE.baseline
    numbers = features(detector, recipe, Cost.of(detector))
    assert numbers["cost.params"] == math.log2(426_608)
    assert numbers["backbone.width4"] == math.log2(128)
    assert numbers["backbone.blocks4"] == math.log2(6)
    assert (numbers["neck.levels.first"], numbers["neck.levels.last"]) == (3, 5)
    assert (numbers["anchors.smallest"], numbers["anchors.largest"]) == (4, 9)
    assert numbers["context.kind=ssh"] == numbers["head.landmarks=True"] == 1
    assert numbers["recipe.optimizer.lr"] == math.log2(recipe.optimizer.lr)


def test_the_matrix_is_scaled_and_without_what_does_not_vary():
    rows = [{"a": 1.0, "b": 5.0, "c": 2.0}, {"a": 3.0, "b": 5.0}, {"a": 2.0, "b": 5.0, "c": 4.0}]
    assert matrix(rows).tolist() == [[0.0, 0.25], [1.0, 0.0], [0.5, 1.0]]


def test_the_gradient_is_that_of_the_posterior():
    rng = np.random.default_rng(0)
    inputs, targets = rng.random((20, 3)), rng.normal(size=20)
    gaps = (inputs[:, None] - inputs[None]) ** 2
    mean, spread = gaussian_process._priors(3)
    for theta in (mean, mean + rng.normal(size=5)):
        _, gradient = gaussian_process._loss(theta, gaps, targets, mean, spread)
        for index, step in enumerate(1e-5 * np.eye(5)):
            above, below = (
                gaussian_process._loss(theta + sign * step, gaps, targets, mean, spread)[0]
                for sign in (1, -1)
            )
            assert gradient[index] == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-5)


def test_a_smooth_function_is_learnt_and_uncertainty_grows_with_distance():
    rng = np.random.default_rng(1)
    inputs = rng.random((80, 6)) * 0.5  # four of six features do nothing
    outputs = 3 + np.sin(5 * inputs[:, 0]) + inputs[:, 1]
    model = gaussian_process.GaussianProcess(inputs, outputs, rng)
    near = rng.random((50, 6)) * 0.5
    mean, spread = model.predict(near)
    assert np.abs(mean - (3 + np.sin(5 * near[:, 0]) + near[:, 1])).max() < 0.05
    _, far = model.predict(near + 0.5)
    assert far.min() > 3 * np.median(spread)


def test_predictions_are_those_of_the_closed_form():
    """Rasmussen & Williams (2.25, 2.26), with the kernel written out point by point."""
    rng = np.random.default_rng(2)
    inputs, values, new = rng.random((6, 2)), rng.random(6), rng.random((3, 2))
    model = gaussian_process.GaussianProcess(inputs, values, rng)
    theta = np.exp(model._theta)

    def kernel(a, b):
        r = math.sqrt(5 * sum(theta[i] * (a[i] - b[i]) ** 2 for i in range(2)))
        return theta[2] * (1 + r + r * r / 3) * math.exp(-r)

    inverse = np.linalg.inv(
        np.array([[kernel(a, b) for b in inputs] for a in inputs]) + theta[3] * np.eye(6)
    )
    mean, spread = model.predict(new)
    for index, point in enumerate(new):
        row = np.array([kernel(point, b) for b in inputs])
        expected = values.mean() + row @ inverse @ (values - values.mean())
        variance = values.var() * (kernel(point, point) - row @ inverse @ row)
        assert mean[index] == pytest.approx(expected)
        assert spread[index] == pytest.approx(math.sqrt(variance))


def test_expected_improvement_is_the_integral():
    mean, spread, best = 0.4, 0.3, 0.5
    values = np.linspace(best, 4, 100_000)
    integral = np.trapezoid((values - best) * norm.pdf(values, mean, spread), values)
    assert frugal.expected_improvement(np.array([mean]), np.array([spread]), best)[
        0
    ] == pytest.approx(integral, rel=1e-5)


def test_a_rung_predicts_the_full_budget():
    """Exactly if all trials are on one line from rung to rung; in proportion from one pair."""
    finals = np.linspace(0.2, 0.5, 12)
    known = [{2: 0.1 * a, 6: 0.5 * a, 12: a} for a in finals]
    partly = [
        {epoch: r[epoch] for epoch in (2, 6, 12)[: 1 + index % 3]} for index, r in enumerate(known)
    ]
    assert gaussian_process.at_full_budget(partly) == pytest.approx(finals)
    assert gaussian_process.at_full_budget([known[0], {2: 0.04}, {2: 0.02}]) == pytest.approx(
        [0.2, 0.4, 0.2]
    )


def test_survivors_do_not_make_a_rung_look_better():
    """The best third is promoted; the others' accuracies are predicted without bias."""
    rng = np.random.default_rng(0)
    early = rng.uniform(0.1, 0.3, 3000)
    late = 0.1 + 1.2 * early + rng.normal(0, 0.03, 3000)
    survivors = early > np.quantile(early, 2 / 3)
    predicted = gaussian_process.at_full_budget(
        [{2: x, 12: y} if on else {2: x} for x, y, on in zip(early, late, survivors)]
    )
    assert predicted[~survivors].mean() == pytest.approx(late[~survivors].mean(), abs=0.005)
    assert (predicted[survivors] == late[survivors]).all()


def test_candidates_are_legal_and_new(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "name: tiny\nbaseline: retinaface_mobile025\nproxy: {}\nrungs: [1]\n"
        "dimensions: {neck.width: {int: [4, 256], step: 4}}\n"
        "constraints: {max_macs: 800e6}\n"
    )
    space = SearchSpace.load(path)
    records = []
    for number, width in enumerate(range(4, 48, 4)):
        detector, recipe = space.resolve({"neck.width": width})
        records.append(
            TrialRecord(
                number=number,
                status=Status.COMPLETED,
                design=arch_hash(detector),
                detector=detector,
                recipe=recipe,
                params={"neck.width": width},
                cost=Cost.of(detector),
                speed_score=0.5,
                epochs=(EpochResult(epoch=1, losses={}, lr=0.1, seconds=1.0, ap={"hard": 0.5}),),
            )
        )
    for seed in range(5):
        width = frugal.Frugal(space).ask(records, seed)["neck.width"]
        assert width >= 48
        assert Cost.of(space.resolve({"neck.width": width})[0]).macs <= 800e6
