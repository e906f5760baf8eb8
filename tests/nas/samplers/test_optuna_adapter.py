"""The installed Optuna has all that `optuna_adapter` uses beyond the documented interface."""

import inspect
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.samplers import optuna_adapter

# What a class, a function or an instance must have: attributes, or parameters.
ATTRIBUTES = {
    "Study": ("_study_id", "_storage"),
    "Study._storage._backend": ("engine",),
    "FrozenTrial": ("_trial_id",),
    "GPSampler": ("_sample_relative_impl",),
    "NSGAIISampler": ("_get_generation_key",),
    "Study._storage": (
        "create_new_trial",
        "get_trial",
        "set_trial_system_attr",
        "set_trial_user_attr",
        "set_trial_intermediate_value",
        "set_trial_state_values",
    ),
    "InMemoryStorage": ("get_all_trials",),
}
PARAMETERS = {
    "FrozenTrial": (
        *("number", "state", "value", "datetime_start", "datetime_complete", "params"),
        *("distributions", "user_attrs", "system_attrs", "intermediate_values", "trial_id"),
        "values",
    ),
    "InMemoryStorage.get_all_trials": ("self", "study_id", "deepcopy", "states"),
    "Study._storage.create_new_trial": ("study_id", "template_trial"),
    "Study._storage.get_trial": ("trial_id",),
    "Study._storage.set_trial_system_attr": ("trial_id", "key", "value"),
    "Study._storage.set_trial_user_attr": ("trial_id", "key", "value"),
    "Study._storage.set_trial_intermediate_value": ("trial_id", "step", "intermediate_value"),
    "Study._storage.set_trial_state_values": ("trial_id", "state", "values"),
}


@pytest.fixture
def study(tmp_path):
    """As `nas.study.storage.Study` makes it."""
    return optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", direction="maximize")


def missing_in(what, name):
    return (
        f"Optuna {optuna.__version__} has no {name} in {what}: adapt "
        "nas/samplers/optuna_adapter.py, or require an older optuna in pyproject.toml"
    )


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_are_there(name, study):
    owner = {
        "Study": study,
        "Study._storage": getattr(study, "_storage", None),
        "Study._storage._backend": getattr(study._storage, "_backend", None),
        "FrozenTrial": optuna.trial.create_trial(value=1.0),
        "GPSampler": optuna.samplers.GPSampler(),
        "NSGAIISampler": optuna.samplers.NSGAIISampler(),
        "InMemoryStorage": optuna.storages.InMemoryStorage(),
    }[name]
    for attribute in ATTRIBUTES[name]:
        assert hasattr(owner, attribute), missing_in(name, attribute)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_known_ones(name, study):
    owner, _, method = name.rpartition(".")
    function = {
        "": FrozenTrial,
        "InMemoryStorage": getattr(optuna.storages.InMemoryStorage, method, None),
        "Study._storage": getattr(getattr(study, "_storage", None), method, None),
    }[owner]
    parameters = inspect.signature(function).parameters
    for parameter in PARAMETERS[name]:
        assert parameter in parameters, missing_in(name, f"parameter {parameter}")
    required = {p.name for p in parameters.values() if p.default is p.empty}
    for parameter in required - set(PARAMETERS[name]):
        raise AssertionError(missing_in(name, f"default for {parameter}"))


def test_stored_trials_come_back(study):
    storage = optuna_adapter.TrialStorage(study)
    distributions = {"x": FloatDistribution(0, 1)}
    trial_id = storage.create_new_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING, params={"x": 0.5}, distributions=distributions
        )
    )
    storage.set_trial_user_attr(trial_id, "macs", 20)
    storage.set_trial_system_attr(trial_id, "record", "text")
    storage.set_trial_intermediate_value(trial_id, 3, 0.25)
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.75])
    (trial,) = study.get_trials()
    assert trial == storage.get_trial(trial_id)
    assert optuna_adapter.trial_id_of(trial) == trial_id
    assert (trial.params, trial.distributions, trial.value) == ({"x": 0.5}, distributions, 0.75)
    assert (trial.user_attrs, trial.system_attrs) == ({"macs": 20}, {"record": "text"})
    assert trial.intermediate_values == {3: 0.25}


def test_failed_trials_are_stored_together_as_optuna_stores_them_one_by_one(tmp_path):
    distributions = {
        "x": FloatDistribution(0, 1),
        "kind": CategoricalDistribution(("a", "b")),
        "width": IntDistribution(8, 64, step=8),
    }
    trials = []
    for number in range(3):
        trial = optuna.trial.create_trial(
            state=TrialState.FAIL,
            params={"x": number / 4, "kind": "ab"[number % 2], "width": 8 * number + 8},
            distributions=distributions,
            user_attrs={"reason": f"é {number}", "macs": number},
            system_attrs={"record": "text"},
        )
        trial.datetime_start = datetime.fromtimestamp(1e9 + number)
        trial.datetime_complete = datetime.fromtimestamp(1e9 + 10 * number + 0.25)
        trials.append(trial)
    trials.append(optuna.trial.create_trial(state=TrialState.FAIL))  # without anything
    stored = []
    for name in ("together", "one by one"):
        study = optuna.create_study(storage=f"sqlite:///{tmp_path}/{name}.db")
        study.add_trial(optuna.trial.create_trial(value=1.0))
        storage = optuna_adapter.TrialStorage(study)
        if name == "together":
            ids = storage.create_failed_trials(trials)
        else:
            ids = [storage.create_new_trial(trial) for trial in trials]
        assert [optuna_adapter.trial_id_of(trial) for trial in study.get_trials()[1:]] == ids
        study.add_trial(optuna.trial.create_trial(value=2.0))  # Optuna goes on after them
        loaded = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/{name}.db")
        stored.append([trial for trial in loaded.get_trials() if trial.state is TrialState.FAIL])
        assert [trial.number for trial in loaded.get_trials()] == list(range(6))
    assert stored[0] == stored[1]
    assert [trial.params for trial in stored[0]] == [trial.params for trial in trials]


def test_a_trial_can_end_at_another_time_than_now(study):
    storage = optuna_adapter.TrialStorage(study)
    ended = datetime.fromtimestamp(1e9 + 0.5)
    running = optuna.trial.create_trial(state=TrialState.RUNNING)
    for trial_id in (storage.create_new_trial(running), storage.create_new_trial(running)):
        storage.set_trial_state_values(trial_id, TrialState.PRUNED, None, ended)
        ended = None
    first, second = study.get_trials()
    assert first.datetime_complete == datetime.fromtimestamp(1e9 + 0.5)
    assert abs(second.datetime_complete - datetime.now()) < timedelta(minutes=10)


def test_a_sampler_sees_the_given_trials_and_no_others():
    seen = []

    class Spy(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, search_space):
            seen.append(study.get_trials(states=(TrialState.COMPLETE,)))
            return {}

        def sample_independent(self, study, trial, name, distribution):
            return 0.5

    distributions = {"x": FloatDistribution(0, 1)}
    trials = [
        optuna_adapter.frozen_trial(
            number, state, {"x": 0.25}, distributions, values=values, system_attrs={"a": number}
        )
        for number, state, values in (
            (1, TrialState.COMPLETE, [0.5, 1.0]),
            (2, TrialState.RUNNING, None),
        )
    ]
    trial = optuna_adapter.ask(trials, Spy(), objectives=2)
    assert trial.suggest_float("x", 0, 1) == 0.5
    assert seen == [trials[:1]]


def test_the_gaussian_process_proposes_as_optunas_own():
    distributions = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    trials = [
        optuna_adapter.frozen_trial(
            n, TrialState.COMPLETE, {"x": n / 13, "y": n * 7 % 13 / 13}, distributions, values=[n]
        )
        for n in range(1, 12)
    ]
    proposals = []
    for sampler in (
        optuna_adapter.gp_sampler(3),
        optuna.samplers.GPSampler(seed=3, n_startup_trials=0),
    ):
        trial = optuna_adapter.ask(trials, sampler)
        proposals.append([trial.suggest_float(name, 0, 1) for name in distributions])
    assert proposals[0] == proposals[1]


def test_the_generation_of_a_trial_is_where_nsga2_looks_for_it():
    sampler = optuna.samplers.NSGAIISampler()
    trial = optuna_adapter.frozen_trial(
        1,
        TrialState.COMPLETE,
        {},
        {},
        values=[1.0],
        system_attrs={optuna_adapter.generation_key(sampler): 7},
    )
    assert sampler.get_trial_generation(optuna.create_study(), trial) == 7
