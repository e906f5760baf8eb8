"""The decisions of a search, with simulated training."""

import functools
import random
from dataclasses import replace
from pathlib import Path

import helpers
import pytest

from analysis.records.load import load_records
from analysis.statistics.pareto import front_of
from detector.base.errors import DiskFull
from nas.engine.halving import epochs_expected
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.record import EpochResult, Status, records_from_json
from trials.run import Failure, SegmentReport

SPACE = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  backbone.width: {choice: [0.125, 0.25, 0.5, 3.0]}
  neck.width: {choice: [16, 32, 64]}
  context.kind: {choice: [ssh, none]}
proxy: {size: 64, batch_size: 4}
rungs: [1, 2, 4]
eta: 2
constraints: {max_params: 20000000}
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    return SearchSpace.load(path)


def make(tmp_path, space, study=None, trials=10, name="s", rungs=None, sampler="random", **changes):
    study = study or Study.create(tmp_path, name, helpers.manifest(name))
    space = replace(space, rungs=rungs or space.rungs)
    return helpers.driver(tmp_path, space, study=study, trials=trials, sampler=sampler, **changes)


def epoch_result(driver, segment, epoch):
    """The accuracy depends on design and epoch only."""
    rng = random.Random(f"{driver.records[segment.number].design}/{epoch}")
    accuracy = 0.5 * rng.random() + 0.05 * epoch
    ap = helpers.equal_ap(accuracy) if epoch in segment.evaluate_at else None
    return EpochResult(epoch=epoch, losses={"total": 1.0}, lr=0.1, seconds=1.0, ap=ap)


def train(driver, segment, fault=None, killed=lambda: False):
    """Simulate a segment; returns False if `killed` does not let it end, else True.

    Args:
        fault: of segment and epoch, returns the failure of an epoch, or None.
        killed: called before each epoch.
    """
    record = driver.records[segment.number]
    folder = Path(segment.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(len(record.epochs) + 1, segment.until + 1):
        if fault and (failure := fault(segment, epoch)):
            driver.handle_report(SegmentReport(number=segment.number, ended=True, failure=failure))
            return True
        if killed():
            return False
        (folder / "last.pt").write_text(str(epoch))
        driver.handle_report(
            SegmentReport(
                number=segment.number,
                epoch=epoch_result(driver, segment, epoch),
                ended=epoch == segment.until,
            )
        )
    return True


def simulate(driver, **how):
    """Simulate a search, one segment at a time; returns False if it was killed, else True.

    Args:
        how: see `train`.
    """
    while True:
        try:
            segment = driver.next_segment()
        except StopIteration:
            driver.close()
            return True
        if not train(driver, segment, **how):
            return False


@pytest.mark.parametrize("sampler", ["random", "joint"])
def test_a_search_trains_the_requested_number_of_designs(tmp_path, space, sampler):
    driver = make(tmp_path, space, trials=12, sampler=sampler)
    simulate(driver)
    records = driver.records
    feasible = [r for r in records if r.number and r.status is not Status.INFEASIBLE]
    assert len(feasible) == 12
    assert len({r.identity for r in records}) == len(records)
    assert records[0].source == "baseline"
    assert records[0].status is Status.COMPLETED
    assert len(records[0].epochs) == 4
    infeasible = [r for r in records if r.status is Status.INFEASIBLE]
    assert bool(infeasible) == (sampler == "random")  # joint proposes feasible designs only
    assert all(
        "max_params" in r.reason and r.cost.params > 20_000_000 and not r.epochs for r in infeasible
    )
    assert {r.status for r in records} - {Status.INFEASIBLE} == {Status.COMPLETED, Status.PRUNED}
    assert driver.finished()


def test_infeasible_designs_are_stored_in_batches_with_the_same_outcome(
    tmp_path, space, monkeypatch, without_times
):
    Path(space.path).write_text(SPACE.replace("20000000", "120000"))
    space, sizes, records = SearchSpace.load(space.path), [], {}
    add_infeasible = Study.add_infeasible

    def counted(study, batch, distributions):
        sizes.append(len(batch))
        add_infeasible(study, batch, distributions)

    monkeypatch.setattr(Study, "add_infeasible", counted)
    for batch in (1, 3, 64):
        monkeypatch.setattr("nas.engine.driver.INFEASIBLE_BATCH", batch)
        sizes.clear()
        driver = make(tmp_path, space, name=f"by-{batch}", trials=4)
        simulate(driver)
        assert max(sizes) <= batch
        stored = Study.open(tmp_path, f"by-{batch}").records
        assert stored == driver.records == load_records(driver.study.folder)
        records[batch] = without_times(stored)
        assert sum(r.status is Status.INFEASIBLE for r in stored) == sum(sizes)
    assert records[1] == records[3] == records[64]
    assert len(sizes) <= 4 < sum(sizes)


def test_rungs_save_epochs_and_only_fully_trained_designs_are_completed(tmp_path, space):
    driver = make(tmp_path, space, trials=12)
    simulate(driver)
    feasible = [r for r in driver.records if r.number and r.status is not Status.INFEASIBLE]
    assert all(len(r.epochs) == 4 for r in feasible if r.status is Status.COMPLETED)
    assert all(len(r.epochs) in (1, 2) for r in feasible if r.status is Status.PRUNED)
    assert 3 <= sum(r.status is Status.COMPLETED for r in feasible) < 12


def test_a_sampler_that_promotes_spends_the_epochs_of_successive_halving(tmp_path, space):
    driver = make(tmp_path, space, trials=12, sampler="joint")
    simulate(driver)
    expected = epochs_expected(12, space.rungs, space.eta)
    spent = sum(r.epochs_spent for r in driver.records)
    assert expected - space.rungs[-1] < spent <= expected
    completed = [r for r in driver.records if r.number and r.status is Status.COMPLETED]
    assert completed and all(len(r.epochs) == 4 for r in completed)
    reasons = {r.reason for r in driver.records if r.status is Status.PRUNED}
    assert reasons <= {f"others were more promising after epoch {n}" for n in (1, 2)}


def test_with_a_single_rung_everything_is_trained_in_full(tmp_path, space):
    driver = make(tmp_path, space, trials=5, rungs=(4,))
    simulate(driver)
    assert [len(r.epochs) for r in driver.records if r.status is not Status.INFEASIBLE] == [4] * 6


@pytest.mark.parametrize("sampler", ["random", "joint"])
def test_killed_anywhere_and_resumed_gives_the_same_study(tmp_path, space, sampler, without_times):
    uninterrupted = make(tmp_path, space, name="uninterrupted", sampler=sampler)
    simulate(uninterrupted)
    for seed in range(1, 30, 6):
        name = f"killed-{seed}"
        rng = random.Random(seed)
        killed = make(tmp_path, space, name=name, sampler=sampler)
        for _ in range(20):
            epochs = iter(range(rng.randrange(1, 6)))
            if simulate(killed, killed=lambda left=epochs: next(left, None) is None):
                break
            killed = make(tmp_path, space, study=Study.open(tmp_path, name), sampler=sampler)
        simulate(killed)
        assert without_times(killed.records) == without_times(uninterrupted.records)


class Killed(BaseException):
    """Simulates kill -9: no `except Exception` catches it."""


def test_killed_before_or_after_any_write_to_the_storage(
    tmp_path, space, monkeypatch, without_times
):
    uninterrupted = make(tmp_path, space, name="uninterrupted", trials=5)
    simulate(uninterrupted)
    rng, kills = random.Random(0), 0

    def kill_at_write(study, number):
        """Kill the search before or after a write of its study, after `number` others."""
        others, after = iter(range(number)), rng.random() < 0.5

        def write(inner, *args, **kwargs):
            last = next(others, None) is None
            if last and not after:
                raise Killed
            result = inner(*args, **kwargs)
            if last:
                raise Killed
            return result

        for name in (
            "create_new_trial",
            "create_failed_trials",
            "set_trial_system_attr",
            "set_trial_user_attr",
            "set_trial_intermediate_value",
            "set_trial_state_values",
        ):
            inner = getattr(study._storage, name)
            monkeypatch.setattr(study._storage, name, functools.partial(write, inner))

    study = Study.create(tmp_path, "killed", helpers.manifest("killed"))
    while True:
        kill_at_write(study, rng.randrange(12))
        try:
            with study.writing():
                driver = make(tmp_path, space, study=study, trials=5)
                simulate(driver)
                break
        except Killed:
            kills += 1
            study = Study.open(tmp_path, "killed")
    assert kills >= 10
    records = Study.open(tmp_path, "killed").records
    assert without_times(records) == without_times(uninterrupted.records)
    latest_states = {
        record.number: trial.state
        for trial in study._optuna.get_trials()
        for record in records_from_json(trial.system_attrs["record"])
    }
    assert all(state.is_finished() for state in latest_states.values())


@pytest.mark.parametrize("sampler", ["random", "joint"])
def test_more_trials_extend_a_finished_study(tmp_path, space, sampler):
    driver = make(tmp_path, space, trials=4, sampler=sampler)
    simulate(driver)
    before = {r.number: r.identity for r in driver.records}
    study = Study.open(tmp_path, "s")
    extended = make(tmp_path, space, study=study, trials=12, sampler=sampler)
    assert not extended.finished()
    extended.reopen()
    simulate(extended)
    assert extended.num_sampled() == 12
    assert {n: extended.records[n].identity for n in before} == before
    assert Study.open(tmp_path, "s").records == extended.records


def test_an_exhausted_space_ends_the_search_with_a_reason(tmp_path, space):
    driver = make(tmp_path, space, trials=500)
    simulate(driver)
    assert "exhausted" in str(driver.exhausted)
    assert driver.num_sampled() <= 24
    assert driver.finished()


def test_a_trial_with_a_transient_failure_is_retried(tmp_path, space):
    failed = []

    def once(segment, epoch):
        if segment.number and not failed:
            failed.append(segment.number)
            return Failure(reason="killed", is_transient=True)
        return None

    driver = make(tmp_path, space)
    simulate(driver, fault=once)
    assert driver.records[failed[0]].retries == 1
    assert driver.records[failed[0]].epochs


def test_out_of_memory_halves_the_images_at_a_time(tmp_path, space):
    """Batches of four in two parts, then in four; a resumed search uses four at once."""
    out_of_memory = Failure(reason="out of memory", is_transient=True, out_of_memory=True)
    driver = make(tmp_path, space, trials=1)
    parts = []
    for _ in range(2):
        segment = driver.next_segment()
        parts.append(segment.accumulate)
        train(driver, segment, fault=lambda segment, epoch: out_of_memory)
    identity = driver.records[0].identity
    driver = make(tmp_path, space, trials=1, study=Study.open(tmp_path, "s"))
    assert driver.records[0].notes["accumulate"] == 4
    simulate(driver, fault=lambda segment, epoch: parts.append(segment.accumulate))
    assert parts == [1, 2] + 4 * [4] + 4 * [1]  # four epochs of each trial
    assert (driver.records[0].status, driver.records[0].retries) == (Status.COMPLETED, 0)
    assert driver.records[0].identity == identity

    driver = make(tmp_path, space, name="too-large")
    for _ in range(4):
        train(driver, driver.next_segment(), fault=lambda segment, epoch: out_of_memory)
        record = driver.records[0]
        if record.status is Status.FAILED:
            break
    assert record.reason == "out of memory; even with one image at a time (4 parts a step)"


def test_a_permanent_failure_fails_one_trial_only(tmp_path, space):
    numbers = []

    def nan(segment, epoch):
        if segment.number and numbers in ([], [segment.number]):
            numbers[:] = [segment.number]
            return Failure(reason="TrainingError: nan", traceback="…")
        return None

    driver = make(tmp_path, space)
    simulate(driver, fault=nan)
    failed = [r for r in driver.records if r.status is Status.FAILED]
    assert [(r.number, r.reason, r.traceback) for r in failed] == [
        (numbers[0], "TrainingError: nan", "…")
    ]
    assert driver.stop_reason() is None
    assert [path.name for path in driver.workdir(failed[0]).iterdir()] == ["log.txt"]
    assert (
        (driver.workdir(failed[0]) / "log.txt").read_text().endswith("failed: TrainingError: nan\n")
    )


def test_a_full_disk_is_not_a_failure_of_the_trial(tmp_path, space):
    driver = make(tmp_path, space)
    train(driver, driver.next_segment())
    segment = driver.next_segment()
    before = driver.records[1]
    driver.handle_report(
        SegmentReport(
            number=1,
            ended=True,
            failure=Failure(reason="No space left", is_transient=True, disk_full=True),
        )
    )
    consequence = Failure(reason="an error that follows from it")
    driver.handle_report(SegmentReport(number=1, ended=True, failure=consequence))
    for method in (driver.check, driver.next_segment):
        with pytest.raises(DiskFull, match="No space left"):
            method()
    resumed = make(tmp_path, space, study=Study.open(tmp_path, "s"))
    assert resumed.records[1] == before
    assert resumed.next_segment() == segment


def test_a_search_in_which_most_trials_fail_stops(tmp_path, space):
    def all_but_the_baseline(segment, epoch):
        return Failure(reason="broken") if segment.number else None

    driver = make(tmp_path, space)
    simulate(driver, fault=all_but_the_baseline)
    assert "4 of 5 trials failed, more than --max-failures 0.5 allows" in str(driver.stop_reason())
    assert len([r for r in driver.records if r.status is Status.FAILED]) == 4
    resumed = make(tmp_path, space, study=driver.study, max_failures=1.0)
    simulate(resumed, fault=all_but_the_baseline)
    assert resumed.stop_reason() is None
    assert len([r for r in resumed.records if r.status is Status.FAILED]) == 10


def test_infeasible_designs_do_not_count_in_the_share_of_failed_trials(tmp_path, space):
    Path(space.path).write_text(SPACE.replace("20000000", "120000"))
    driver = make(tmp_path, SearchSpace.load(space.path))
    simulate(driver, fault=lambda segment, _: Failure(reason="x") if segment.number else None)
    assert "4 of 5 trials failed" in str(driver.stop_reason())
    assert len(driver.records) > 2 * 4


def test_a_search_stops_if_the_baseline_fails(tmp_path, space):
    driver = make(tmp_path, space)
    simulate(driver, fault=lambda segment, epoch: Failure(reason="broken"))
    assert "the baseline among them" in str(driver.stop_reason())
    assert len(driver.records) == 1


def test_only_the_best_and_the_front_keep_their_checkpoints(tmp_path, space):
    driver = make(tmp_path, space, trials=15, rungs=(4,))
    simulate(driver)
    completed = [r for r in driver.records if r.status is Status.COMPLETED]
    with_checkpoint = {r.number for r in completed if (driver.workdir(r) / "last.pt").exists()}
    best = max(completed, key=lambda r: r.score).number
    assert with_checkpoint == {r.number for r in front_of(completed, "macs")} | {best}


def test_a_trial_without_its_checkpoint_is_trained_from_the_start(tmp_path, space):
    driver = make(tmp_path, space)
    for _ in range(4):
        train(driver, driver.next_segment())
    paused = next(r for r in driver.records if r.status is Status.PAUSED)
    (driver.workdir(paused) / "last.pt").unlink()
    simulate(driver)
    record = driver.records[paused.number]
    assert [e.epoch for e in record.epochs] == list(range(1, len(record.epochs) + 1))
