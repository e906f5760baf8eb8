"""The decisions of `joint`."""

from dataclasses import replace

import helpers
import numpy as np
import pytest

from analysis.statistics.fidelities import shares_of_front
from nas.samplers import joint
from nas.samplers.joint import Joint, chance_among_best, chance_on_front
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.record import EpochResult, Status

SPACE = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  backbone.width: {choice: [0.125, 0.1875, 0.25, 0.375, 0.5]}
  neck.width: {choice: [16, 24, 32, 48, 64]}
  context.kind: {choice: [ssh, none]}
proxy: {size: 64, batch_size: 4}
rungs: [2, 6, 12]
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(SPACE)
    return SearchSpace.load(path)


@pytest.fixture
def trial(space):
    """Function: number, accuracies by epoch → a paused or completed trial of a random design."""
    from nas.engine.gate import evaluate_cost

    def make(number, accuracies, **changes):
        proposal = evaluate_cost(space, space.suggest(RandomTrial(f"trial {number}")))
        epochs = tuple(
            EpochResult(
                epoch=epoch,
                losses={"total": 1.0},
                lr=0.1,
                seconds=1.0,
                ap=helpers.equal_ap(accuracies[epoch]) if epoch in accuracies else None,
            )
            for epoch in range(1, max(accuracies) + 1)
        )
        status = Status.COMPLETED if 12 in accuracies else Status.PAUSED
        record = proposal.record(number, space.objective)
        return record.evolve(epochs=epochs, status=status, **changes)

    return make


def test_the_best_are_counted_in_every_sample(monkeypatch):
    monkeypatch.setattr(joint, "BEST", 2)
    score = np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [0.0, 1.0, 2.0], [9.0, 8.0, 7.0]])
    assert chance_among_best(score).tolist() == [0.75, 0.75, 0.5]
    assert chance_among_best(score[:, :1]).tolist() == [1.0]


@pytest.mark.parametrize("speeds", [8, 3, 1])
def test_on_the_front_is_what_nothing_as_fast_beats(speeds):
    rng = np.random.default_rng(0)
    accuracy, speed = rng.random((50, 8)), rng.permutation(8) % speeds / 8
    expected = [
        np.mean([all(a[i] >= a[j] for j in range(8) if speed[j] >= speed[i]) for a in accuracy])
        for i in range(8)
    ]
    assert chance_on_front(accuracy, speed) == pytest.approx(expected)
    assert shares_of_front(accuracy, -speed) == pytest.approx(expected)


def test_a_promising_trial_goes_on_before_others(space, trial):
    records = [
        trial(0, {2: 0.05, 6: 0.2, 12: 0.3}),
        trial(1, {2: 0.01, 6: 0.05}),
        trial(2, {2: 0.15, 6: 0.5}),
        trial(3, {2: 0.012}),
    ]
    step = Joint(space).next_step(records, 0, epochs=100)
    assert (step.trial, step.params) == (records[2], None)


def test_only_paused_trials_that_learned_something_and_can_be_afforded(space, trial):
    records = [
        trial(0, {2: 0.05, 6: 0.2, 12: 0.3}),
        trial(1, {2: 0.15, 6: 0.5}).evolve(status=Status.RUNNING),
        trial(2, {2: 0.15, 6: 0.5}).evolve(status=Status.FAILED),
        trial(3, {2: 0.001}),
        trial(4, {2: 0.02}),
    ]
    sampler = Joint(space)
    for seed in range(5):
        assert sampler.next_step(records, seed, epochs=4, new=False).trial is records[4]
        step = sampler.next_step(records, seed, epochs=3)  # from epoch 2 to 6 it takes four
        assert step.trial is None
        assert space.resolve(step.params)
    nothing = sampler.next_step(records, 0, epochs=3, new=False)
    assert (nothing.trial, nothing.params) == (None, None)


def test_a_step_is_a_function_of_records_and_seed(space, trial):
    records = [trial(n, {2: 0.05 + 0.01 * n}) for n in range(8)]
    used = Joint(space)
    for seed in range(4):
        fresh = Joint(space).next_step(records, seed, epochs=50)
        assert used.next_step(records, seed, epochs=50) == fresh


def test_latency_counts_where_it_is_the_metric(space, trial):
    from dataclasses import replace

    timed = replace(
        space, objective=replace(space.objective, metric="latency_ms", best=2, worst=2000)
    )
    records = [
        r.evolve(cost=replace(r.cost, latency_ms=5.0 + r.number))
        for r in (trial(n, {2: 0.05 + 0.01 * n}) for n in range(4))
    ]
    assert Joint(timed).next_step(records, 0, epochs=50) != joint.Step()


def test_promote_front_gives_the_front_more_of_the_steps(space, trial, monkeypatch):
    records = [trial(n, {2: 0.1 * n, 6: 0.12 * n, 12: 0.15 * n}) for n in range(1, 5)]
    served = []

    def count(accuracy, speed):
        served.append(1)
        return chance_on_front(accuracy, speed)

    monkeypatch.setattr(joint, "chance_on_front", count)
    steps = {}
    for promote in ("score", "front"):
        served.clear()
        sampler = Joint(replace(space, promote=promote))
        for seed in range(40):
            sampler.next_step(records, seed, epochs=100)
        steps[promote] = len(served)
    assert 2 <= steps["score"] <= 14  # a fifth
    assert 12 <= steps["front"] <= 28  # half
