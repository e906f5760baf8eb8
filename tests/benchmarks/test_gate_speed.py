"""How many designs a core can look at, and how long TPE thinks about one."""

import time

import pytest

from nas.gate import weigh
from nas.samplers import Proposer
from nas.space import SPACES, RandomTrial, SearchSpace
from trials.record import Cost, EpochResult, Status, TrialRecord


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
def test_tpe_asks_in_20_ms_at_200_trials():
    space = SearchSpace.load(SPACES / "retina.yaml")
    trial = RandomTrial("benchmark")
    records = [TrialRecord(
        number=number, status=Status.PRUNED if number % 4 else Status.COMPLETED, design="",
        detector={}, recipe={}, params=space.suggest(trial), cost=Cost(params=1, macs=1),
        speed_score=0.5, epochs=(EpochResult(epoch=1, losses={}, lr=0.1, seconds=1.0,
                                             ap={"hard": number % 7 / 10}),))
        for number in range(200)]
    proposer = Proposer(space, seed=0)
    proposer.update(records)
    seconds = []
    for attempt in range(6):
        started = time.process_time()
        proposer.ask(attempt)
        seconds.append(time.process_time() - started)
    print(f"{1000 * min(seconds):.1f} ms")
    assert min(seconds) < 0.02
