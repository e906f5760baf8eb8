"""Designs that a core checks per second, and the time each sampler takes for a suggestion."""

import statistics
import time
from collections import Counter
from dataclasses import replace

import helpers
import pytest

from nas.engine import gate
from nas.engine.driver import Driver
from nas.engine.gate import evaluate_cost
from nas.samplers.proposer import Proposer
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace
from nas.study.storage import Study
from trials.record import EpochResult, Status, TrialRecord


@pytest.mark.benchmark
def test_50_designs_a_second_pass_the_gate():
    space = SearchSpace.load(SPACES / "retina.yaml")
    trial = RandomTrial("benchmark")
    draws = [space.suggest(trial) for _ in range(500)]
    started = time.process_time()
    proposals = [evaluate_cost(space, params) for params in draws]
    rate = len(draws) / (time.process_time() - started)
    print(
        f"{rate:.0f} designs/s, {sum(p.violation is not None for p in proposals)} of 500 infeasible"
    )
    assert rate > 50


@pytest.mark.benchmark
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_where_the_time_of_sampling_goes(tmp_path, monkeypatch, sampler):
    """A space of which nearly all designs are infeasible, sampled by the search's own code."""
    calls, seconds, busy = Counter(), Counter(), Counter()

    def timed(owner, name, part):
        inner = getattr(owner, name)

        def call(*args, **kwargs):
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - wall
                busy[part] += time.process_time() - cpu
                calls[part] += 1

        monkeypatch.setattr(owner, name, call)

    space = SearchSpace.load(SPACES / "retina.yaml")
    space = replace(space, constraints=replace(space.constraints, max_macs=250_000_000))
    driver = helpers.driver(tmp_path, space, sampler=sampler, trials=1000)
    study = driver.study
    for record in history(SearchSpace.load(SPACES / "retina.yaml"), 30):
        study.add(record, {})
    timed(gate, "evaluate_cost", "gate")
    timed(Proposer, "ask", "sampler")
    timed(Study, "add", "storage")
    timed(Study, "add_infeasible", "storage")
    timed(Driver, "_sample", "all")
    while calls["gate"] < 300:
        driver._sample()
    designs = calls["gate"]
    infeasible = sum(r.status is Status.INFEASIBLE for r in study.records)
    print(
        f"{sampler}: {designs} designs, {100 * infeasible / designs:.0f} % infeasible, "
        f"{designs / busy['gate']:.0f} gated/s of a core; ms a design (of them computing): "
        + ", ".join(
            f"{part} {1000 * seconds[part] / designs:.1f} ({1000 * busy[part] / designs:.1f})"
            for part in seconds
        )
    )
    assert infeasible > 0.9 * designs
    assert designs / busy["gate"] >= 50
    assert calls["storage"] < 0.2 * designs


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("sampler", "trials", "limit"),
    [
        ("tpe", 200, 0.02),
        ("tpe", 500, 1.0),
        ("nsga2", 500, 1.0),
        ("gp", 500, 1.0),
        ("frugal", 500, 1.0),
    ],
)
def test_a_sampler_suggests_in_time(sampler, trials, limit):
    """A worker may wait for each suggestion. The study grows by a trial each time; the first
    suggestion includes imports."""
    space = SearchSpace.load(SPACES / "retina.yaml")
    records = history(space, trials + 5)
    proposer = Proposer(space, sampler)
    seconds = []
    for count in range(trials, trials + 6):
        started = time.process_time()
        proposer.update(records[:count])
        proposer.ask()
        seconds.append(time.process_time() - started)
    print(
        f"{sampler}, {trials} trials: {1000 * statistics.median(seconds):.0f} ms, "
        f"{1000 * max(seconds):.0f} at most"
    )
    assert statistics.median(seconds) < limit


def history(space, count):
    """Feasible designs, all with a result at the first rung, a third of them in full."""
    trial, records = RandomTrial("benchmark"), []
    while len(records) < count:
        proposal = evaluate_cost(space, space.suggest(trial))
        if proposal.violation is None:
            number = len(records)
            epochs = space.rungs if number % 3 == 0 else space.rungs[:1]
            records.append(
                TrialRecord(
                    number=number,
                    status=Status.PRUNED if number % 3 else Status.COMPLETED,
                    design=proposal.design,
                    detector=proposal.detector,
                    recipe=proposal.recipe,
                    params=proposal.params,
                    cost=proposal.cost,
                    speed_score=space.objective.speed_score(proposal.cost),
                    epochs=tuple(
                        EpochResult(
                            epoch=e, losses={}, lr=0.1, seconds=1.0, ap={"hard": number % 7 / 10}
                        )
                        for e in epochs
                    ),
                )
            )
    return records
