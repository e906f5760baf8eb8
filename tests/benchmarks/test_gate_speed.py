"""How many designs a core can look at, and how long each sampler thinks about one."""

import statistics
import time

import pytest

from nas.gate import weigh
from nas.samplers import Proposer
from nas.space import SPACES, RandomTrial, SearchSpace
from trials.record import EpochResult, Status, TrialRecord


@pytest.mark.benchmark
def test_50_designs_a_second_pass_the_gate():
    space = SearchSpace.load(SPACES / "retina.yaml")
    trial = RandomTrial("benchmark")
    draws = [space.suggest(trial) for _ in range(500)]
    started = time.process_time()
    found = [weigh(space, params) for params in draws]
    rate = len(draws) / (time.process_time() - started)
    print(f"{rate:.0f} designs/s, {sum(f.violation is not None for f in found)} of 500 infeasible")
    assert rate > 50


@pytest.mark.benchmark
@pytest.mark.parametrize(("sampler", "trials", "limit"), [
    ("tpe", 200, 0.02), ("tpe", 500, 1.0), ("nsga2", 500, 1.0), ("gp", 500, 1.0),
    ("frugal", 500, 1.0)])
def test_a_sampler_suggests_in_time(sampler, trials, limit):
    """Each suggestion is seconds that a worker may wait; the first one also imports."""
    space = SearchSpace.load(SPACES / "retina.yaml")
    records = history(space, trials)
    proposer = Proposer(space, sampler)
    proposer.update(records)
    seconds = []
    for attempt in range(6):
        started = time.process_time()
        proposer.ask(attempt)
        seconds.append(time.process_time() - started)
    print(f"{sampler}, {trials} trials: {1000 * statistics.median(seconds):.0f} ms")
    assert statistics.median(seconds) < limit


def history(space, count):
    """Legal designs, all with a result at the first rung, a third in full."""
    trial, records = RandomTrial("benchmark"), []
    while len(records) < count:
        found = weigh(space, space.suggest(trial))
        if found.violation is None:
            number = len(records)
            epochs = space.rungs if number % 3 == 0 else space.rungs[:1]
            records.append(TrialRecord(
                number=number, status=Status.PRUNED if number % 3 else Status.COMPLETED,
                design=found.design, detector=found.detector.to_dict(),
                recipe=found.recipe.to_dict(), params=found.params, cost=found.cost,
                speed_score=space.objective.speed_score(found.cost),
                epochs=tuple(EpochResult(epoch=e, losses={}, lr=0.1, seconds=1.0,
                                         ap={"hard": number % 7 / 10}) for e in epochs)))
    return records
