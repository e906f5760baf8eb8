"""What earlier studies say: it helps where it is right, and costs nothing where it is not."""

import numpy as np
import pytest

from detector.base.errors import UserError
from nas.samplers.learning_curves import LearningCurves, Observations
from nas.samplers.prior import Prior, Source


def designs(count, seed=0):
    """Features of designs, and a log accuracy that depends on two of them."""
    rng = np.random.default_rng(seed)
    rows = [
        {"neck.width": float(rng.integers(3, 7)), "noise": rng.random()}
        | ({"kind=a": 1.0} if rng.random() < 0.5 else {"kind=b": 1.0})
        for _ in range(count)
    ]
    level = [-2.5 + 0.2 * row["neck.width"] + 0.3 * row.get("kind=a", 0.0) for row in rows]
    return rows, np.array(level)


def source(name="earlier", count=60, seed=0, shift=0.0, noise=0.02):
    rows, level = designs(count, seed)
    level = level + shift + noise * np.random.default_rng(seed).standard_normal(count)
    return Source(name=name, features=rows, accuracy=np.exp(level) - 0.01)


def test_it_recovers_the_effects_of_features():
    prior = Prior.fit([source()])
    rows, level = designs(40, seed=1)
    assert np.abs(prior.predict(rows) - (level - level.mean())).max() < 0.03
    assert prior.explained > 0.95
    assert prior.sources == ("earlier (60 designs)",)


def test_sources_differ_by_a_constant_at_no_cost():
    one, other = source(shift=0.4), source("other", seed=2, shift=-0.3)
    rows, level = designs(40, seed=1)
    predicted = Prior.fit([one, other]).predict(rows)
    assert np.abs(predicted - (level - level.mean())).max() < 0.03


def test_the_explained_share_is_that_of_ridge_regression_refitted_without_each_design():
    data = source(count=30, noise=0.2)
    prior = Prior.fit([data])
    from nas.samplers.prior import PENALTIES

    names = sorted({name for row in data.features for name in row})
    table = np.array([[row.get(name, 0.0) for name in names] for row in data.features])
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    target = np.log(data.accuracy + 0.01)
    target -= target.mean()
    best = min(
        np.mean(
            [
                (
                    target[i]
                    - table[i]
                    @ np.linalg.solve(
                        np.delete(table, i, 0).T @ np.delete(table, i, 0)
                        + penalty * np.eye(len(names)),
                        np.delete(table, i, 0).T @ np.delete(target, i),
                    )
                )
                ** 2
                for i in range(30)
            ]
        )
        for penalty in PENALTIES
    )
    assert prior.explained == pytest.approx(1 - best / np.mean(target**2), abs=1e-3)


def test_designs_beyond_those_seen_count_as_the_nearest_ones():
    prior = Prior.fit([source()])
    near, far, unknown = {"neck.width": 6.0}, {"neck.width": 60.0}, {"kind=c": 1.0}
    predicted = prior.predict([near, far, unknown, {}])
    assert predicted[0] == predicted[1]
    assert predicted[2] == predicted[3]


@pytest.mark.parametrize("accuracy", [np.full(60, 0.3), np.random.default_rng(0).random(60)])
def test_results_that_no_feature_explains_are_no_prior(accuracy):
    rows, _ = designs(60)
    assert Prior.fit([Source(name="noise", features=rows, accuracy=accuracy)]) is None


def test_few_designs_are_no_prior():
    assert Prior.fit([source(count=9)]) is None
    assert Prior.fit([]) is None


def test_it_is_stored_exactly(tmp_path):
    prior = Prior.fit([source()])
    prior.write(tmp_path / "prior.json")
    assert Prior.load(tmp_path / "prior.json") == prior
    with pytest.raises(UserError, match=r"missing\.json: no such file; restore it"):
        Prior.load(tmp_path / "missing.json")
    (tmp_path / "prior.json").write_text("{")
    with pytest.raises(UserError, match=r"prior\.json: .*restore it from a copy"):
        Prior.load(tmp_path / "prior.json")


def error(prior, observed_count, factor):
    """Mean error of log accuracy over unseen designs, with a prior × factor (0: without)."""
    rows, level = designs(60, seed=3)
    inputs = np.random.default_rng(4).random((60, 5))  # say nothing
    seen = np.arange(observed_count)
    observed = Observations(seen, np.full(observed_count, 12.0), np.exp(level[seen]) - 0.01)
    expected = factor * prior.predict(rows)
    model = LearningCurves(inputs, observed, 12, np.random.default_rng(5), expected)
    predicted = np.log(model.sample(400, np.random.default_rng(6)) + 0.01).mean(axis=0)
    return float(np.abs(predicted - level)[observed_count:].mean())


def test_the_slope_of_a_prior_is_learnt():
    prior = Prior.fit([source()])
    without = error(prior, 12, 0)
    assert error(prior, 12, 1) < 0.3 * without
    assert error(prior, 12, -0.5) < 0.5 * without  # the wrong way round: a negative slope


def test_without_results_the_prior_alone_counts():
    prior = Prior.fit([source()])
    rows, level = designs(30, seed=3)
    none = Observations(np.array([], int), np.array([]), np.array([]))
    model = LearningCurves(
        np.zeros((30, 1)), none, 12, np.random.default_rng(0), prior.predict(rows)
    )
    predicted = model.sample(2000, np.random.default_rng(1))
    assert np.corrcoef(np.log(predicted + 0.01).mean(axis=0), level)[0, 1] > 0.9
