import numpy as np
import pytest

from analysis.records.load import load_records
from analysis.statistics.importance import (
    MIN_TRIALS,
    Importances,
    beyond_cost,
    choices,
    feature_table,
    importances,
    importances_of,
    resolved,
)


def test_what_cost_alone_explains_is_removed():
    rng = np.random.default_rng(0)
    cost = 10 ** rng.uniform(8, 11, 50)
    x = np.log10(cost)
    assert beyond_cost(0.1 * x**2 - x + 3, cost) == pytest.approx(0, abs=1e-9)
    extra = rng.normal(0, 1, 50)
    residuals = beyond_cost(x + extra, cost)
    assert (
        residuals.mean() == pytest.approx(0, abs=1e-9) and np.corrcoef(residuals, extra)[0, 1] > 0.9
    )


def test_importance_of_a_known_function():
    """Of y = 2a + b with a, b uniform, shuffling a costs 2 · 4/12 of the variance 5/12."""
    rng = np.random.default_rng(0)
    values = rng.random((600, 3))
    features, explained = importances(values, 2 * values[:, 0] + values[:, 1], ["a", "b", "none"])
    by_name = {i.feature: i for i in features}
    assert [i.feature for i in features] == ["a", "b", "none"] and explained > 0.95
    assert by_name["a"].value == pytest.approx(1.6, abs=0.15)
    assert by_name["b"].value == pytest.approx(0.4, abs=0.1)
    assert by_name["none"].low <= 0.005 and abs(by_name["none"].value) < 0.01
    assert all(i.low <= i.value <= i.high for i in features)


def test_noise_explains_nothing():
    rng = np.random.default_rng(1)
    _, explained = importances(rng.random((80, 4)), rng.random(80), list("abcd"))
    assert explained < 0.1


def test_table_of_features():
    values, names, texts = feature_table(
        [
            {"kind": "b", "same": 1, "w": 8, "duplicate": 8},
            {"kind": "a", "same": 1, "w": 16, "duplicate": 16},
            {"kind": "b", "same": 1},
        ]
    )
    assert names == ["kind", "w"] and texts == [{0: "a", 1: "b"}, {}]
    assert values[:, 0].tolist() == [1, 0, 1]
    assert np.isnan(values[2, 1]) and values[1, 1] == 16


def test_the_choice_that_matters_ranks_first(generated_study):
    records = load_records(generated_study("one", 200))
    result = importances_of(records)
    assert result.features[0].feature == "context.kind" and result.features[0].low > 0
    assert result.explained > 0 and result.epoch == 7
    assert result.trials == sum(len(r.epochs) == 7 for r in records)
    names = set(resolved(records[1]))
    assert {"neck.width", "backbone blocks", "recipe.optimizer.lr"} <= names
    few = [r for r in records if r.epochs][: MIN_TRIALS - 1]
    assert importances_of(few) is None and importances_of([]) is None


def test_choices_have_the_names_of_the_space_unless_some_are_conditional(records):
    params = {"backbone.width": 0.25, "neck.levels": [3, 4], "recipe.optimizer.lr": 0.03}
    study = [records[0].evolve(params={})] + [r.evolve(params=params) for r in records[1:]]
    baseline, first, *_ = choices(study[:3], study)
    assert first == params | {"neck.levels": "[3, 4]"}
    assert baseline == {
        "backbone.width": None,
        "neck.levels": None,
        "recipe.optimizer.lr": study[0].recipe.optimizer.lr,
    }
    conditional = [*study, records[1].evolve(params={"backbone.width": 0.5})]
    assert choices(study[:3], conditional) == [resolved(r) for r in study[:3]]


def test_importances_of_a_poor_fit_are_not_reliable():
    poor, good = (Importances((), explained, 50, 7) for explained in (0.04, 0.5))
    assert not poor.reliable and good.reliable
    assert "explain 4 % of it (R² 0.04)" in poor.reliability
    assert "explain nothing of it (R² -0.20)" in Importances((), -0.2, 50, 7).reliability
