"""How many designs that meet a budget of MACs a core draws."""

import time

import pytest

from nas.engine.gate import weigh
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace


@pytest.mark.benchmark
@pytest.mark.parametrize("macs", [0.5e9, 2.5e9, 10e9])
def test_20_legal_designs_a_second(macs):
    space, trial = SearchSpace.load(SPACES / "scrfd.yaml", macs), RandomTrial("benchmark")
    started = time.process_time()
    drawn = [weigh(space, space.suggest(trial)) for _ in range(300)]
    seconds = time.process_time() - started
    legal = sum(found.violation is None for found in drawn)
    print(f"{space.budget}: {legal / seconds:.0f} legal designs/s, {legal} of {len(drawn)} draws")
    assert legal / seconds > 20
