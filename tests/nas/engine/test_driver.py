"""The search's decisions, played by an executor that only pretends to train."""

import functools
import random
from dataclasses import replace
from pathlib import Path

import helpers
import pytest

from analysis.records.load import load_records
from detector.base.errors import DiskFull
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


def pretend(driver, segment, epoch):
    """An accuracy that depends on design and epoch alone."""
    chance = random.Random(f"{driver.records[segment.number].design}/{epoch}")
    value = 0.5 * chance.random() + 0.05 * epoch
    ap = {"easy": value, "medium": value, "hard": value} if epoch in segment.evaluate_at else None
    return EpochResult(epoch=epoch, losses={"total": 1.0}, lr=0.1, seconds=1.0, ap=ap)


def work(driver, segment, fault=None, stop_after=None):
    """One segment to its end; leaves a checkpoint as `fit` does. False: killed in the middle."""
    record = driver.records[segment.number]
    folder = Path(segment.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(len(record.epochs) + 1, segment.until + 1):
        if fault and (failure := fault(segment, epoch)):
            driver.handle_report(SegmentReport(number=segment.number, ended=True, failure=failure))
            return True
        if stop_after is not None and stop_after():
            return False
        (folder / "last.pt").write_text(str(epoch))
        driver.handle_report(
            SegmentReport(
                number=segment.number,
                epoch=pretend(driver, segment, epoch),
                ended=epoch == segment.until,
            )
        )
    return True


def play(driver, **how):
    """The whole search, one segment at a time. False: killed in the middle."""
    while True:
        try:
            segment = driver.next_segment()
        except StopIteration:
            driver.close()
            return True
        if not work(driver, segment, **how):
            return False


def test_a_search_draws_the_designs_it_was_asked_for(tmp_path, space):
    driver = make(tmp_path, space, trials=12)
    play(driver)
    records = driver.records
    legal = [r for r in records if r.number and r.status is not Status.INFEASIBLE]
    assert len(legal) == 12
    assert len({r.identity for r in records}) == len(records)
    assert records[0].source == "baseline"
    assert records[0].status is Status.COMPLETED
    assert len(records[0].epochs) == 4
    infeasible = [r for r in records if r.status is Status.INFEASIBLE]
    assert infeasible
    assert all(
        "max_params" in r.reason and r.cost.params > 20_000_000 and not r.epochs for r in infeasible
    )
    assert {r.status for r in records} == {Status.COMPLETED, Status.PRUNED, Status.INFEASIBLE}
    assert driver.finished()


def test_infeasible_designs_are_stored_in_batches_with_the_same_outcome(
    tmp_path, space, monkeypatch, without_times
):
    Path(space.path).write_text(SPACE.replace("20000000", "120000"))
    space, sizes, records = SearchSpace.load(space.path), [], {}
    whole = Study.add_infeasible

    def counted(study, batch):
        sizes.append(len(batch))
        whole(study, batch)

    monkeypatch.setattr(Study, "add_infeasible", counted)
    for batch in (1, 3, 64):
        monkeypatch.setattr("nas.engine.driver.BATCH", batch)
        sizes.clear()
        driver = make(tmp_path, space, name=f"by-{batch}", trials=4)
        play(driver)
        assert max(sizes) <= batch
        stored = Study.open(tmp_path, f"by-{batch}").records
        assert stored == driver.records == load_records(driver.study.folder)
        records[batch] = without_times(stored)
        assert sum(r.status is Status.INFEASIBLE for r in stored) == sum(sizes)
    assert records[1] == records[3] == records[64]
    assert len(sizes) <= 4 < sum(sizes)


def test_rungs_spare_epochs_and_only_full_budgets_complete(tmp_path, space):
    driver = make(tmp_path, space, trials=12)
    play(driver)
    legal = [r for r in driver.records if r.number and r.status is not Status.INFEASIBLE]
    assert all(len(r.epochs) == 4 for r in legal if r.status is Status.COMPLETED)
    assert all(len(r.epochs) in (1, 2) for r in legal if r.status is Status.PRUNED)
    assert 3 <= sum(r.status is Status.COMPLETED for r in legal) < 12


def test_no_scheduler_trains_everything_in_full(tmp_path, space):
    driver = make(tmp_path, space, trials=5, rungs=(4,))
    play(driver)
    assert [len(r.epochs) for r in driver.records if r.status is not Status.INFEASIBLE] == [4] * 6


def test_killed_anywhere_and_resumed_gives_the_same_study(tmp_path, space, without_times):
    whole = make(tmp_path, space, name="whole")
    play(whole)
    for kill in range(1, 30, 3):
        name = f"killed-{kill}"
        chance = random.Random(kill)
        killed = make(tmp_path, space, name=name)
        for _ in range(20):
            countdown = iter(range(chance.randrange(1, 6)))
            if play(killed, stop_after=lambda left=countdown: next(left, None) is None):
                break
            killed = make(tmp_path, space, study=Study.open(tmp_path, name))
        play(killed)
        assert without_times(killed.records) == without_times(whole.records)


class Killed(BaseException):
    """As by kill -9: nothing of this process runs any more."""


def test_killed_before_or_after_any_step_of_the_storage(
    tmp_path, space, monkeypatch, without_times
):
    whole = make(tmp_path, space, name="whole", trials=5)
    play(whole)
    chance, kills = random.Random(0), 0

    def mortal(study, steps):
        """Have the study killed at one of its next steps: before it is stored, or right after."""
        left, after = iter(range(steps)), chance.random() < 0.5

        def step(inner, *args, **kwargs):
            last = next(left, None) is None
            if last and not after:
                raise Killed
            result = inner(*args, **kwargs)
            if last:
                raise Killed
            return result

        for name in (
            "create_new_trial",
            "set_trial_user_attr",
            "set_trial_intermediate_value",
            "set_trial_state_values",
        ):
            inner = getattr(study._storage, name)
            monkeypatch.setattr(study._storage, name, functools.partial(step, inner))

    study = Study.create(tmp_path, "killed", helpers.manifest("killed"))
    while True:
        mortal(study, chance.randrange(12))
        try:
            with study.writing():
                driver = make(tmp_path, space, study=study, trials=5)
                play(driver)
                break
        except Killed:
            kills += 1
            study = Study.open(tmp_path, "killed")
    assert kills >= 10
    records = Study.open(tmp_path, "killed").records
    assert without_times(records) == without_times(whole.records)
    standing = {
        record.number: trial.state
        for trial in study._optuna.get_trials()
        for record in records_from_json(trial.user_attrs["record"])
    }
    assert all(state.is_finished() for state in standing.values())


def test_more_trials_extend_a_finished_study(tmp_path, space):
    driver = make(tmp_path, space, trials=4)
    play(driver)
    before = {r.number: r.identity for r in driver.records}
    more = make(tmp_path, space, study=Study.open(tmp_path, "s"), trials=12)
    assert not more.finished()
    more.reopen()
    play(more)
    assert sum(r.number != 0 and r.status is not Status.INFEASIBLE for r in more.records) == 12
    assert {n: more.records[n].identity for n in before} == before
    assert Study.open(tmp_path, "s").records == more.records


def test_an_exhausted_space_ends_the_search_with_a_reason(tmp_path, space):
    driver = make(tmp_path, space, trials=500)
    play(driver)
    assert "exhausted" in str(driver.exhausted)
    assert driver.sampled() <= 24
    assert driver.finished()


def test_a_fault_that_may_pass_is_tried_once_more(tmp_path, space):
    seen = []

    def once(segment, epoch):
        if segment.number and not seen:
            seen.append(segment.number)
            return Failure(reason="killed", is_transient=True)
        return None

    driver = make(tmp_path, space)
    play(driver, fault=once)
    assert driver.records[seen[0]].retries == 1
    assert driver.records[seen[0]].epochs


def test_out_of_memory_halves_the_images_at_a_time(tmp_path, space):
    """Batches of four: two parts, then four; kept by a search that goes on after a stop."""
    full = Failure(reason="out of memory", is_transient=True, out_of_memory=True)
    driver = make(tmp_path, space, trials=1)
    parts = []
    for _ in range(2):
        segment = driver.next_segment()
        parts.append(segment.accumulate)
        work(driver, segment, fault=lambda segment, epoch: full)
    identity = driver.records[0].identity
    driver = make(tmp_path, space, trials=1, study=Study.open(tmp_path, "s"))
    assert driver.records[0].notes["accumulate"] == 4
    play(driver, fault=lambda segment, epoch: parts.append(segment.accumulate))
    assert parts == [1, 2] + 4 * [4] + 4 * [1]  # four epochs of each trial
    assert (driver.records[0].status, driver.records[0].retries) == (Status.COMPLETED, 0)
    assert driver.records[0].identity == identity

    only = make(tmp_path, space, name="only")
    for _ in range(4):
        work(only, only.next_segment(), fault=lambda segment, epoch: full)
        record = only.records[0]
        if record.status is Status.FAILED:
            break
    assert record.reason == "out of memory; even with one image at a time (4 parts a step)"


def test_a_lasting_fault_fails_one_trial_alone(tmp_path, space):
    seen = []

    def nan(segment, epoch):
        if segment.number and seen in ([], [segment.number]):
            seen[:] = [segment.number]
            return Failure(reason="TrainingError: nan", traceback="…")
        return None

    driver = make(tmp_path, space)
    play(driver, fault=nan)
    failed = [r for r in driver.records if r.status is Status.FAILED]
    assert [(r.number, r.reason, r.traceback) for r in failed] == [
        (seen[0], "TrainingError: nan", "…")
    ]
    assert driver.failure() is None
    assert [path.name for path in driver.workdir(failed[0]).iterdir()] == ["log.txt"]
    assert (
        (driver.workdir(failed[0]) / "log.txt").read_text().endswith("failed: TrainingError: nan\n")
    )


def test_a_full_disk_is_no_fault_of_the_trial_that_meets_it(tmp_path, space):
    driver = make(tmp_path, space)
    work(driver, driver.next_segment())
    segment = driver.next_segment()
    before = driver.records[1]
    driver.handle_report(
        SegmentReport(
            number=1,
            ended=True,
            failure=Failure(reason="No space left", is_transient=True, disk_full=True),
        )
    )
    driver.handle_report(SegmentReport(number=1, ended=True, failure=Failure(reason="what comes of it")))
    for ask in (driver.check, driver.next_segment):
        with pytest.raises(DiskFull, match="No space left"):
            ask()
    again = make(tmp_path, space, study=Study.open(tmp_path, "s"))
    assert again.records[1] == before
    assert again.next_segment() == segment


def test_a_search_in_which_most_trials_fail_stops(tmp_path, space):
    def all_but_the_baseline(segment, epoch):
        return Failure(reason="broken") if segment.number else None

    driver = make(tmp_path, space)
    play(driver, fault=all_but_the_baseline)
    assert "4 of 5 trials failed, more than --max-failures 0.5 allows" in str(driver.failure())
    assert len([r for r in driver.records if r.status is Status.FAILED]) == 4
    more = make(tmp_path, space, study=driver.study, max_failures=1.0)
    play(more, fault=all_but_the_baseline)
    assert more.failure() is None
    assert len([r for r in more.records if r.status is Status.FAILED]) == 10


def test_infeasible_designs_do_not_hide_how_many_trials_fail(tmp_path, space):
    Path(space.path).write_text(SPACE.replace("20000000", "120000"))
    driver = make(tmp_path, SearchSpace.load(space.path))
    play(driver, fault=lambda segment, _: Failure(reason="x") if segment.number else None)
    assert "4 of 5 trials failed" in str(driver.failure())
    assert len(driver.records) > 2 * 4


def test_without_the_baseline_there_is_no_yardstick(tmp_path, space):
    driver = make(tmp_path, space)
    play(driver, fault=lambda segment, epoch: Failure(reason="broken"))
    assert "the baseline among them" in str(driver.failure())
    assert len(driver.records) == 1


def test_checkpoints_stay_for_the_front_the_best_and_the_paused(tmp_path, space):
    driver = make(tmp_path, space, trials=15, rungs=(4,))
    play(driver)
    from analysis.statistics.pareto import front_of

    completed = [r for r in driver.records if r.status is Status.COMPLETED]
    kept = {r.number for r in completed if (driver.workdir(r) / "last.pt").exists()}
    best = max(completed, key=lambda r: r.score).number
    assert kept == {r.number for r in front_of(completed)} | {best}


def test_a_lost_checkpoint_means_training_anew(tmp_path, space):
    driver = make(tmp_path, space)
    for _ in range(4):
        work(driver, driver.next_segment())
    paused = next(r for r in driver.records if r.status is Status.PAUSED)
    (driver.workdir(paused) / "last.pt").unlink()
    play(driver)
    record = driver.records[paused.number]
    assert [e.epoch for e in record.epochs] == list(range(1, len(record.epochs) + 1))
