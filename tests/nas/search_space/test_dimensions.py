"""Values of a dimension: its grid is Optuna's, and rounding errors do not count."""

import math

import optuna
import pytest

from nas.search_space.dimensions import parse
from nas.search_space.random_trial import RandomTrial

RANGES = [
    {"float": [0.1, 0.3], "step": 0.1},  # 0.1 + 2 × 0.1 is above 0.3
    {"float": [0.1, 0.7], "step": 0.1},
    {"float": [-0.3, 0.3], "step": 0.1},
    {"float": [0.05, 0.95], "step": 0.05},
    {"int": [1, 5], "step": 2},
    {"int": [-4, 4]},
    {"int": [1, 8], "log": True},
]


@pytest.mark.parametrize("entry", RANGES, ids=str)
def test_values_are_those_that_optuna_gives(entry):
    dimension = parse("x", entry)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    given = {dimension.suggest(study.ask()) for _ in range(300)}
    assert given == set(dimension.values())
    assert {dimension.suggest(RandomTrial(seed)) for seed in range(300)} == given
    for value in given:
        assert dimension.find(value) == value
        assert dimension.distribution()._contains(value)


@pytest.mark.parametrize(
    ("entry", "given", "found"),
    [
        ({"float": [0.1, 0.5], "step": 0.1}, 0.3, 0.1 + 2 * 0.1),
        ({"float": [0.1, 0.3], "step": 0.1}, 0.1 + 2 * 0.1, 0.3),
        ({"float": [0.1, 0.3], "step": 0.1}, 0.25, None),
        ({"float": [0.1, 0.3], "step": 0.1}, 0.4, None),
        ({"float": [0.0, 1.0]}, 1, 1.0),
        ({"int": [1, 5], "step": 2}, 4, None),
        ({"int": [1, 5], "step": 2}, 5.0, 5),
        ({"int": [1, 5]}, 4.5, None),
        ({"choice": [0, True, "a"]}, 1, None),
        ({"choice": [0, True, "a"]}, True, True),
    ],
)
def test_a_value_is_found_up_to_rounding_errors(entry, given, found):
    value = parse("x", entry).find(given)
    assert value == found and type(value) is type(found)


@pytest.mark.parametrize("entry", [*RANGES, {"choice": [1, "a"]}, {"float": [0, 1]}], ids=str)
def test_what_is_no_value_is_not_found(entry):
    dimension = parse("x", entry)
    for given in (None, True, "", [1], {1: 1}, math.nan, math.inf, 10**400):
        assert not dimension.has(given)
