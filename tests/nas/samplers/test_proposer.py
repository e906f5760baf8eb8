"""Proposals are functions of seed and records; samplers beat random draws; TPE sees the records as
Optuna would."""

import functools
import inspect
import subprocess
import sys
import warnings

import optuna
import pytest

from detector.base.errors import UserError
from detector.config.detector import arch_hash
from nas.samplers.base import Sampler
from nas.samplers.proposer import DEFAULT, SAMPLERS, Proposer, propose, sampler_help
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace
from trials.record import Cost, EpochResult, Status, TrialRecord

SPACE = SearchSpace.load(SPACES / "retina.yaml")


def epoch(number, ap):
    return EpochResult(epoch=number, losses={}, lr=0.1, seconds=1.0, ap={"easy": ap, "hard": ap})


def drawn(space, params):
    """The fields of a record that follow from its parameters; without any, the baseline's."""
    detector, recipe = space.resolve(params) if params else space.baseline
    return {
        "params": params,
        "design": arch_hash(detector),
        "detector": detector,
        "recipe": recipe,
        "cost": Cost.of(detector),
    }


def history(count):
    """Records of a search: a baseline, then trials of every status."""
    return list(_history()[:count])


@functools.cache
def _history():
    trial = RandomTrial("history")
    statuses = (
        Status.COMPLETED,
        Status.PAUSED,
        Status.PRUNED,
        Status.INFEASIBLE,
        Status.FAILED,
        Status.RUNNING,
    )
    records = []
    for number in range(80):
        status = statuses[number % len(statuses)] if number else Status.COMPLETED
        trained = status in (Status.COMPLETED, Status.PAUSED, Status.PRUNED)
        last = 9 if status is Status.COMPLETED else 1
        records.append(
            TrialRecord(
                number=number,
                status=status,
                speed_score=0.5,
                epochs=(epoch(last, number % 7 / 10),) if trained else (),
                **drawn(SPACE, SPACE.suggest(trial) if number else {}),
            )
        )
    return records


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_is_a_function_of_seed_records_and_attempt(sampler):
    records = history(40)
    proposer = Proposer(SPACE, sampler, seed=3)
    for count in (0, 1, 40):  # one that is reused, and a new one
        proposer.update(records[:count])
        assert proposer.ask() == proposer.ask() == propose(SPACE, sampler, records[:count], seed=3)
    proposals = [proposer.ask(attempt) for attempt in range(6)]
    assert all(a != b for i, a in enumerate(proposals) for b in proposals[:i])
    assert proposer.ask() != propose(SPACE, sampler, records, seed=4)
    assert proposer.ask() != propose(SPACE, sampler, records[: len(records) // 2], seed=3)
    for params in proposals:
        SPACE.resolve(params)


@pytest.mark.parametrize("name", [name for name, spec in SAMPLERS.items() if spec.module])
def test_every_sampler_satisfies_the_protocol(name):
    """Its row names a class that is made with a space, and whose proposals are parameters of it
    that depend on the arguments alone, however few records there are."""
    sampler, again = Proposer(SPACE, name)._sampler, Proposer(SPACE, name)._sampler
    expected = inspect.signature(Sampler.ask)
    signature = inspect.signature(type(sampler).ask)
    assert list(signature.parameters) == list(expected.parameters)
    assert signature.return_annotation == expected.return_annotation
    for count in (SAMPLERS[name].startup_trials * 2, 40):
        records = history(count)
        before = list(records)
        params = sampler.ask(records, 5)
        assert params == sampler.ask(tuple(records), seed=5) == again.ask(records, 5)
        assert records == before
        SPACE.resolve(params)


def test_rows_of_samplers_are_consistent():
    for name, spec in SAMPLERS.items():
        assert f"{name}: {spec.description}" in sampler_help()
        assert bool(spec.module) == bool(spec.class_name) == bool(spec.max_attempts)
    assert DEFAULT in SAMPLERS


def test_optuna_is_imported_only_for_samplers_that_need_it():
    code = (
        "import sys\n"
        "from nas.samplers.proposer import Proposer\n"
        "from nas.search_space.space import SPACES, SearchSpace\n"
        "space = SearchSpace.load(SPACES / 'quick.yaml')\n"
        "for name in ('random', 'frugal'):\n"
        "    Proposer(space, name).ask()\n"
        "assert 'optuna' not in sys.modules\n"
        "Proposer(space, 'tpe')\n"
        "assert 'optuna' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=SPACES.parent, check=True)


def test_a_record_that_changes_is_seen():
    records = history(40)
    proposer = Proposer(SPACE, "tpe", seed=0)
    proposer.update(records)
    proposer.ask()
    better = [
        r.evolve(status=Status.COMPLETED, epochs=r.epochs + (epoch(9, 0.9),))
        if r.status is Status.PAUSED
        else r
        for r in records
    ]
    proposer.update(better)
    assert (
        proposer.ask()
        == propose(SPACE, "tpe", better, seed=0)
        != propose(SPACE, "tpe", records, seed=0)
    )


def test_tpe_sees_what_optuna_would_see(monkeypatch):
    """The same proposal from a study to which each record was added by Optuna's documented API."""
    records, seeds = history(80), []
    tpe = optuna.samplers.TPESampler
    monkeypatch.setattr(
        optuna.samplers, "TPESampler", lambda **k: seeds.append(k["seed"]) or tpe(**k)
    )
    ours = propose(SPACE, "tpe", records, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(
            direction="maximize",
            sampler=tpe(
                seed=seeds[0],
                n_startup_trials=10,
                multivariate=True,
                group=True,
                constant_liar=True,
            ),
        )
    state = optuna.trial.TrialState
    states = {
        Status.COMPLETED: state.COMPLETE,
        Status.PAUSED: state.PRUNED,
        Status.PRUNED: state.PRUNED,
        Status.RUNNING: state.RUNNING,
    }
    for r in records[1:]:
        if r.status in states:
            study.add_trial(
                optuna.create_trial(
                    params=SPACE.to_internal(r.params),
                    distributions=SPACE.distributions(r.params, internal=True),
                    state=states[r.status],
                    value=r.score if r.status is Status.COMPLETED else None,
                    intermediate_values=r.scores(),
                )
            )
    assert SPACE.suggest(study.ask()) == ours


@pytest.mark.parametrize(
    ("sampler", "trials"), [("tpe", 80), ("nsga2", 160), ("gp", 45), ("frugal", 30)]
)
def test_models_beat_random_draws(tmp_path, sampler, trials):
    """Accuracy with one best value in each of six ordered dimensions, and the exact speed."""
    path = tmp_path / "hill.yaml"
    names = ["neck.width", *(f"backbone.depth{k}" for k in range(1, 6))]
    path.write_text(
        "name: hill\nbaseline: retinaface_mobile025\nproxy: {}\nrungs: [1]\ndimensions:\n"
        + "".join(f"  {name}: {{choice: [4, 8, 12, 16, 20, 24, 28, 32]}}\n" for name in names)
    )
    space = SearchSpace.load(path)

    def mean_of_the_last(sampler):
        proposer, records = Proposer(space, sampler, seed=1), []
        for number in range(trials):
            proposer.update(records)
            facts = drawn(space, proposer.ask())
            height = 1 - sum(abs(v - 12) for v in facts["params"].values()) / 120
            records.append(
                TrialRecord(
                    number=number,
                    status=Status.COMPLETED,
                    epochs=(epoch(1, height),),
                    speed_score=space.objective.speed_score(facts["cost"]),
                    **facts,
                )
            )
        return sum(r.score for r in records[-15:]) / 15

    assert mean_of_the_last(sampler) > mean_of_the_last("random") + 0.2


def test_the_order_of_hashes_does_not_matter():
    """Another process, other hashes of strings: the same proposal."""
    code = (
        "import sys; sys.path[:0] = ['tests/nas/samplers', '.']\n"
        "from test_proposer import *\n"
        "print(propose(SPACE, 'tpe', history(40), seed=3))"
    )
    out = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=SPACES.parent,
            text=True,
            check=True,
            capture_output=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "12"
    }
    assert out == {f"{propose(SPACE, 'tpe', history(40), seed=3)}\n"}


def test_unknown_sampler():
    with pytest.raises(UserError, match="'grid': is not one of tpe, random"):
        Proposer(SPACE, "grid")
