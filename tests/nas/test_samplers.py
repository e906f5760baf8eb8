"""Proposals are functions of seed and records, and TPE sees the records as Optuna would."""

import subprocess
import sys
import warnings

import optuna
import pytest

from detector.errors import UserError
from nas.samplers import STUBBORN, Proposer, propose
from nas.space import SPACES, RandomTrial, SearchSpace
from trials.record import Cost, EpochResult, Status, TrialRecord

SPACE = SearchSpace.load(SPACES / "retina.yaml")


def epoch(number, ap):
    return EpochResult(epoch=number, losses={}, lr=0.1, seconds=1.0, ap={"easy": ap, "hard": ap})


def history(count, space=SPACE):
    """A search's records: a baseline, then all that may become of a trial."""
    trial = RandomTrial("history")
    statuses = (Status.COMPLETED, Status.PAUSED, Status.PRUNED, Status.INFEASIBLE, Status.FAILED,
                Status.RUNNING)
    records = []
    for number in range(count):
        status = statuses[number % len(statuses)] if number else Status.COMPLETED
        trained = status in (Status.COMPLETED, Status.PAUSED, Status.PRUNED)
        last = 9 if status is Status.COMPLETED else 1
        records.append(TrialRecord(
            number=number, status=status, design=str(number), detector={}, recipe={},
            params=space.suggest(trial) if number else {}, cost=Cost(params=1, macs=1),
            speed_score=0.5, epochs=(epoch(last, number % 7 / 10),) if trained else ()))
    return records


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_proposal_is_a_function_of_seed_records_and_attempt(sampler):
    records = history(60)
    kept = Proposer(SPACE, sampler, seed=3)
    for count in (0, 1, 30, 60):  # one that lives on, and one made anew from what is stored
        kept.update(records[:count])
        assert kept.ask() == kept.ask() == propose(SPACE, sampler, records[:count], seed=3)
    asked = [kept.ask(attempt) for attempt in range(STUBBORN + 3)]
    assert all(a != b for i, a in enumerate(asked) for b in asked[:i])
    assert kept.ask() != propose(SPACE, sampler, records, seed=4)
    assert kept.ask() != propose(SPACE, sampler, records[:-1], seed=3)
    for params in asked:
        SPACE.resolve(params)


def test_a_record_that_changes_is_seen():
    records = history(40)
    proposer = Proposer(SPACE, seed=0)
    proposer.update(records)
    proposer.ask()
    better = [r.but(status=Status.COMPLETED, epochs=r.epochs + (epoch(9, 0.9),))
              if r.status is Status.PAUSED else r for r in records]
    proposer.update(better)
    assert proposer.ask() == propose(SPACE, "tpe", better, seed=0) != propose(
        SPACE, "tpe", records, seed=0)


def test_tpe_sees_what_optuna_would_see(monkeypatch):
    """The same from a study to which each record was added by Optuna's own means."""
    records, seeds = history(80), []
    tpe = optuna.samplers.TPESampler
    monkeypatch.setattr(optuna.samplers, "TPESampler",
                        lambda **k: seeds.append(k["seed"]) or tpe(**k))
    ours = propose(SPACE, "tpe", records, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize", sampler=tpe(
            seed=seeds[0], n_startup_trials=20, multivariate=True, group=True, constant_liar=True))
    state = optuna.trial.TrialState
    states = {Status.COMPLETED: state.COMPLETE, Status.PAUSED: state.PRUNED,
              Status.PRUNED: state.PRUNED, Status.RUNNING: state.RUNNING}
    for r in records[1:]:
        if r.status in states:
            study.add_trial(optuna.create_trial(
                params=SPACE.coded(r.params),
                distributions=SPACE.distributions(r.params, coded=True),
                state=states[r.status], value=r.score if r.status is Status.COMPLETED else None,
                intermediate_values=r.scores()))
    assert SPACE.suggest(study.ask()) == ours


def test_tpe_finds_what_chance_does_not(tmp_path):
    """A score with one best value in each of six ordered dimensions."""
    path = tmp_path / "hill.yaml"
    names = ["neck.width", *(f"backbone.depth{k}" for k in range(1, 6))]
    path.write_text(
        "name: hill\nbaseline: retinaface_mobile025\nproxy: {}\nrungs: [1]\ndimensions:\n"
        + "".join(f"  {name}: {{choice: [4, 8, 12, 16, 20, 24, 28, 32]}}\n" for name in names))
    space = SearchSpace.load(path)

    def best(sampler):
        records = []
        for number in range(80):
            params = propose(space, sampler, records, seed=1)
            height = 1 - sum(abs(v - 12) for v in params.values()) / 120
            records.append(TrialRecord(
                number=number, status=Status.COMPLETED, design="", detector={}, recipe={},
                params=params, cost=Cost(params=1, macs=1), speed_score=0.0,
                epochs=(epoch(1, height),)))
        return sum(r.score for r in records[-20:]) / 20

    assert best("tpe") > best("random") + 0.2


def test_the_order_of_hashes_does_not_matter():
    """Another process, other hashes of strings: the same proposal."""
    code = ("import sys; sys.path[:0] = ['tests/nas', '.']\n"
            "from test_samplers import *\n"
            "print(propose(SPACE, 'tpe', history(60), seed=3))")
    out = {subprocess.run([sys.executable, "-c", code], cwd=SPACES.parent, text=True, check=True,
                          capture_output=True, env={"PYTHONHASHSEED": seed}).stdout
           for seed in "12"}
    assert out == {f"{propose(SPACE, 'tpe', history(60), seed=3)}\n"}


def test_unknown_sampler():
    with pytest.raises(UserError, match="'gp': is not one of tpe, random"):
        Proposer(SPACE, "gp")
