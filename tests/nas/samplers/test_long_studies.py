"""Of a long study, samplers learn from a part that stands for all."""

from collections import Counter
from dataclasses import replace

import helpers
import numpy as np
import pytest

from nas.engine.gate import evaluate_cost
from nas.samplers import base, frugal, optuna_samplers
from nas.samplers.base import representative
from nas.samplers.proposer import SAMPLERS, propose
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace
from trials.record import EpochResult, Status, TrialRecord


def test_a_short_study_is_learned_from_whole():
    assert representative([3.0, 1.0, 2.0], most=3) == [0, 1, 2]
    assert representative([], most=3) == []


def test_the_best_and_the_latest_and_an_even_part_of_the_others():
    scores = np.random.default_rng(0).permutation(10_000)
    chosen = representative(scores, always=[17], most=500)
    assert chosen == sorted(set(chosen)) and len(chosen) == 500
    assert 17 in chosen
    assert set(np.argsort(-scores)[:100]) <= set(chosen)
    assert set(range(9_950, 10_000)) <= set(chosen)
    tenths = Counter(index // 1_000 for index in chosen)
    assert all(30 <= tenths[tenth] <= 60 for tenth in range(9)), tenths


def test_one_more_trial_changes_few():
    scores = np.random.default_rng(0).permutation(2_001)
    before, after = (set(representative(scores[:n])) for n in (2_000, 2_001))
    assert len(after - before) <= 2


def test_what_must_be_there_comes_first_and_no_more_than_there_is_room_for():
    assert representative(range(9), always=(5, 4, 3, 2), most=3) == [3, 4, 5]


def test_later_generations_follow_the_best_of_the_earlier_ones(monkeypatch):
    monkeypatch.setattr(optuna_samplers, "MAX_TRIALS", 60)
    rng = np.random.default_rng(0)
    results = [
        (helpers.trial_record(number, speed_score=float(speed)), float(accuracy))
        for number, (accuracy, speed) in enumerate(rng.random((130, 2)))
    ]
    chosen = [
        (record.number, accuracy) for record, accuracy in optuna_samplers._generations(results)
    ]
    numbers = [number for number, _ in chosen]
    assert len(numbers) == 50 and numbers[20:] == list(range(100, 130))
    front = {
        record.number
        for record, accuracy in results[:100]
        if not any(
            a >= accuracy and r.speed_score >= record.speed_score and r is not record
            for r, a in results[:100]
        )
    }
    assert len(front) <= 20 and front <= set(numbers[:20])
    assert optuna_samplers._generations(results[:60]) == results[:60]


def test_tpe_keeps_its_distance_from_all_that_are_running(monkeypatch):
    monkeypatch.setattr(base, "MAX_TRIALS", 20)
    monkeypatch.setattr(optuna_samplers, "MAX_TRIALS", 20)
    records = [
        helpers.trial_record(
            number,
            params={"a": 1},
            status=Status.PAUSED if number % 10 else Status.RUNNING,
            epochs=(_epoch(3, number / 100),) if number % 10 else (),
        )
        for number in range(50)
    ]
    chosen = {record.number for record in optuna_samplers._for_tpe(records)}
    assert len(chosen) == 20
    assert {0, 10, 20, 30, 40} | {49, 48, 47, 46} <= chosen


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_in_a_long_study(monkeypatch, sampler):
    for module in (base, frugal, optuna_samplers):
        monkeypatch.setattr(module, "MAX_TRIALS", 40, raising=False)
    space = SearchSpace.load(SPACES / "quick.yaml")
    records = _history(replace(space, rungs=(1, 3)), 90)
    first = propose(space, sampler, records, seed=0)
    assert first == propose(space, sampler, records, seed=0)
    evaluate_cost(space, first)


def _epoch(epoch: int, accuracy: float) -> EpochResult:
    return EpochResult(
        epoch=epoch, losses={"total": 1.0}, lr=0.1, seconds=1.0, ap=helpers.equal_ap(accuracy)
    )


def _history(space: SearchSpace, count: int) -> list[TrialRecord]:
    """Random designs, all with a result at the first rung and half of them at the last."""
    trial, rng = RandomTrial("long"), np.random.default_rng(0)
    records = []
    for number in range(count):
        record = evaluate_cost(space, space.suggest(trial)).record(number, space.objective)
        epochs = space.rungs if number % 2 else space.rungs[:1]
        records.append(
            record.evolve(
                status=Status.COMPLETED if number % 2 else Status.PAUSED,
                epochs=tuple(_epoch(epoch, float(rng.random())) for epoch in epochs),
            )
        )
    return records
