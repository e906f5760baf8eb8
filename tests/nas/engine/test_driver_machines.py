"""The driver between designs and machines: measured latency, and nodes that die."""

import math
from dataclasses import replace
from pathlib import Path

import helpers
import pytest

from detector.base.errors import TrainingError
from nas.engine.failures import MAX_NODES_LOST, MAX_RETRIES
from nas.samplers.proposer import SAMPLERS
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.record import Cost, EpochResult, Status
from trials.run import Failure, SegmentReport

SPACE = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  backbone.width: {choice: [0.125, 0.25, 0.5]}
  neck.width: {choice: [16, 32, 64]}
  context.kind: {choice: [ssh, none]}
  recipe.optimizer.lr: {float: [0.01, 0.05]}
proxy: {size: 64, batch_size: 4}
rungs: [1]
"""


def milliseconds(detector) -> float:
    return 1e-6 * Cost.of(detector).params + 2.0 * detector.neck.width


class FakeStopwatch:
    """A stopwatch with computed latencies; `measured` lists the designs."""

    def __init__(self):
        self.measured = []

    def __call__(self, detector):
        self.measured.append(detector)
        return replace(Cost.of(detector), latency_ms=milliseconds(detector), machine="a machine")


@pytest.fixture
def make(tmp_path):
    def make(more="", stopwatch=None, sampler="random", trials=6):
        path = tmp_path / "tiny.yaml"
        path.write_text(SPACE + more)
        space = SearchSpace.load(path)
        return helpers.driver(tmp_path, space, sampler=sampler, trials=trials, stopwatch=stopwatch)

    return make


def simulate(driver):
    """Run all segments with simulated training; the accuracy grows with the width of the neck."""
    while True:
        try:
            segment = driver.next_segment()
        except StopIteration:
            driver.close()
            return
        ap = helpers.equal_ap(segment.detector.neck.width / 100)
        driver.handle_report(
            SegmentReport(
                number=segment.number,
                ended=True,
                epoch=EpochResult(epoch=1, losses={"total": 1.0}, lr=0.1, seconds=1.0, ap=ap),
            )
        )


@pytest.mark.parametrize("sampler", ["random", "frugal"])
def test_latency_is_measured_before_a_design_is_trained(make, sampler):
    stopwatch = FakeStopwatch()
    driver = make(
        "objective: {metric: latency_ms, best: 20, worst: 200}\n", stopwatch, sampler, trials=12
    )  # enough for the model of frugal
    simulate(driver)
    assert len(driver.records) == 13
    for record, detector in zip(driver.records, stopwatch.measured, strict=True):
        assert record.cost.latency_ms == milliseconds(detector)
        assert record.cost.machine == "a machine"
        assert record.speed_score == driver.space.objective.speed_score(record.cost)
    assert Study.open(driver.study.folder.parent, "s").records == driver.records


def test_a_cap_on_latency_is_checked_after_the_exact_ones(make):
    stopwatch = FakeStopwatch()
    driver = make(
        "constraints: {max_params: 500000, max_latency_ms: 100}\nobjective: {metric: latency_ms}\n",
        stopwatch,
        trials=15,
    )
    simulate(driver)
    over = [r for r in driver.records if r.status is Status.INFEASIBLE]
    by_params = [r for r in over if "max_params" in r.reason]
    by_latency = [r for r in over if "max_latency_ms 100.0" in r.reason]
    assert by_params
    assert by_latency
    assert len(by_params) + len(by_latency) == len(over)
    assert all(r.cost.latency_ms is None and r.speed_score == 0 for r in by_params)
    assert len(stopwatch.measured) == len(driver.records) - len(by_params)


def test_designs_that_cannot_be_measured_are_infeasible(make):
    class BrokenStopwatch(FakeStopwatch):
        def __call__(self, detector):
            if detector.neck.width == 64 and self.measured:  # not the baseline
                raise TrainingError("latency could not be measured: out of memory")
            return super().__call__(detector)

    driver = make("objective: {metric: latency_ms}\n", BrokenStopwatch(), trials=12)
    simulate(driver)
    infeasible = [r for r in driver.records if r.status is Status.INFEASIBLE]
    assert infeasible
    assert {r.reason for r in infeasible} == {"latency could not be measured: out of memory"}
    assert {r.detector.neck.width for r in infeasible} == {64}


@pytest.mark.parametrize(
    ("metric", "best", "worst", "middle"),
    [("macs", 1e9, 4e9, 2e9), ("params", 1e5, 1e7, 1e6), ("latency_ms", 10, 160, 40)],
)
def test_speed_follows_the_anchors_of_the_space(make, metric, best, worst, middle):
    stopwatch = FakeStopwatch() if metric == "latency_ms" else None
    driver = make(
        f"objective: {{metric: {metric}, best: {best:g}, worst: {worst:g}}}\n", stopwatch, trials=2
    )
    simulate(driver)
    for record in driver.records:
        value = getattr(record.cost, metric)
        expected = 0.5 - 0.5 * math.log(value / middle) / math.log(worst / middle)
        assert record.speed_score == pytest.approx(min(max(expected, 0.0), 1.0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_follows_an_expression_of_latency(make, sampler):
    """Scores of records and of Optuna's study, and the trials that are promoted."""
    driver = make(
        "objective: {score: accuracy - latency_ms / 50}\n", FakeStopwatch(), sampler, trials=12
    )
    simulate(driver)
    for record in driver.records:
        expected = record.detector.neck.width / 100 - milliseconds(record.detector) / 50
        assert record.score == pytest.approx(expected, abs=1e-12)
    stored = Study.open(driver.study.folder.parent, "s")
    assert [r.score for r in stored.records] == [r.score for r in driver.records]
    values = [trial.value for trial in stored._optuna.trials]
    assert values == [r.score if r.status is Status.COMPLETED else None for r in driver.records]


def test_dead_nodes_are_not_failures_of_the_trial(make):
    driver = make()
    node_died = SegmentReport(
        number=0,
        ended=True,
        failure=Failure(reason="the node it ran on died", is_transient=True, node_died=True),
    )
    for deaths in range(1, MAX_NODES_LOST + 1):
        assert driver.next_segment().number == 0
        driver.handle_report(node_died)
        (record,) = driver.records
        assert (record.status, record.retries) == (Status.RUNNING, 0)
        assert record.notes["nodes_lost"] == deaths
    for retries in range(1, MAX_RETRIES + 1):  # the trial may be what kills them
        driver.next_segment()
        driver.handle_report(node_died)
        assert driver.records[0].retries == retries
    driver.next_segment()
    driver.handle_report(node_died)
    assert driver.records[0].status is Status.FAILED
    assert driver.records[0].reason == "the node it ran on died"


def test_retries_count_until_the_next_epoch(make):
    """Workers that are killed now and then are not the fault of a trial that goes on."""
    driver = make()
    killed = SegmentReport(
        number=0, ended=True, failure=Failure(reason="killed", is_transient=True)
    )
    epochs = range(1, MAX_RETRIES + 3)
    for epoch in epochs:
        folder = Path(driver.next_segment().workdir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.pt").touch()
        result = EpochResult(epoch=epoch, losses={"total": 1.0}, lr=0.1, seconds=1.0)
        driver.handle_report(SegmentReport(number=0, epoch=result))
        driver.handle_report(killed)
        assert (driver.records[0].status, driver.records[0].retries) == (Status.RUNNING, epoch)
    for _ in range(MAX_RETRIES):
        driver.next_segment()
        driver.handle_report(killed)
    assert driver.records[0].status is Status.FAILED
    assert len(driver.records[0].epochs) == len(epochs)
