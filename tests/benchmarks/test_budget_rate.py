"""Designs within a MAC budget that are sampled per second and core."""

import time

import pytest

from nas.engine.gate import evaluate_cost
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace


@pytest.mark.benchmark
@pytest.mark.parametrize("macs", [0.5e9, 2.5e9, 10e9])
def test_20_feasible_designs_a_second(macs):
    space, trial = SearchSpace.load(SPACES / "scrfd.yaml", macs), RandomTrial("benchmark")
    started = time.process_time()
    proposals = [evaluate_cost(space, space.suggest(trial)) for _ in range(300)]
    seconds = time.process_time() - started
    feasible = sum(proposal.violation is None for proposal in proposals)
    print(
        f"{space.budget}: {feasible / seconds:.0f} feasible designs/s, "
        f"{feasible} of {len(proposals)}"
    )
    assert feasible / seconds > 20
