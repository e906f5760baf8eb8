"""Designs that learn nothing: never promoted on their speed, never completed, never the best."""

from types import SimpleNamespace

import helpers
import pytest

from analysis import choose
from analysis.statistics.front import front_data
from analysis.statistics.pareto import front_of
from detector.base.cli import PartialFailure
from detector.base.errors import UserError
from nas.engine import halving, run_search
from nas.engine.options import SearchOptions
from nas.engine.weight_inheritance import parent_of
from nas.samplers.base import informative_trials
from nas.study.summary import learning_notes
from trials.compute.resources import Shares
from trials.record import EpochResult, Status, best_of, learned
from trials.run import SegmentReport
from trials.stored import read_progress
from trials.tracking.tracker import NullTracker

RUNGS = (1, 3, 9)


def record(number, accuracies, status=Status.PAUSED, speed=0.5):
    """A trial whose accuracy after epochs 1, 3, 9 is as given."""
    results = {RUNGS[rung]: accuracy for rung, accuracy in enumerate(accuracies)}
    return helpers.trial_record(
        number,
        status=status,
        speed_score=speed,
        epochs=tuple(
            EpochResult(
                epoch=epoch,
                losses={},
                lr=0.1,
                seconds=1.0,
                ap=helpers.equal_ap(results[epoch]) if epoch in results else None,
            )
            for epoch in range(1, max(results, default=0) + 1)
        ),
    )


def with_losses(trial, *totals):
    losses = [{"total": total} for total in totals]
    return trial.evolve(
        epochs=tuple(
            EpochResult(epoch=e.epoch, losses=loss, lr=0.1, seconds=1.0, ap=e.ap)
            for e, loss in zip(trial.epochs, losses, strict=True)
        )
    )


def test_what_counts_as_nothing():
    assert record(1, []).why_nothing_learned() is None  # not evaluated yet
    assert record(1, [0.01]).why_nothing_learned() is None
    assert record(1, [0.0099]).why_nothing_learned() == ("AP of all levels below 0.01 at epoch 1")
    one_level = {"easy": 0.02, "medium": 0.0, "hard": 0.0}
    epoch = EpochResult(epoch=1, losses={}, lr=0.1, seconds=1.0, ap=one_level)
    assert record(1, [0.0]).evolve(epochs=(epoch,)).why_nothing_learned() is None
    late = record(1, [0.005, 0.3])
    assert late.why_nothing_learned(until=1) and late.why_nothing_learned() is None
    grown = with_losses(record(1, [0.2, 0.2]), 120.0, 500.0, 173_290.0)
    assert grown.why_nothing_learned() == ("its mean loss grew from 120 to 1.733e+05 at epoch 3")
    assert with_losses(record(1, [0.2, 0.2]), 120.0, 5000.0, 1200.0).why_nothing_learned() is None


def test_speed_alone_promotes_nothing():
    useless = [record(n, [0.001 * n], speed=1.0) for n in (1, 2, 3)]
    slow = record(4, [0.02], speed=0.1)
    chosen = halving.promotable([*useless, slow], RUNGS, eta=4)
    assert chosen.number == 4
    for promote in ("score", "front"):
        assert halving.promotable(useless, RUNGS, 3, promote) is None
    diverged = with_losses(record(5, [0.3, 0.3], speed=1.0), 1.0, 2.0, 11.0)
    others = [record(n, [0.3, 0.2], speed=0.1) for n in (6, 7)]
    assert halving.promotable([diverged, *others], RUNGS, eta=3).number == 6


def test_without_others_one_of_them_is_promoted_but_no_second_one():
    useless = [record(n, [0.001 * n]) for n in (1, 2, 3)]
    assert halving.last_promotion(useless, RUNGS).number == 3
    assert halving.last_promotion([*useless, record(4, [0.02], speed=0.0)], RUNGS).number == 4
    higher = record(5, [0.3, 0.0], speed=1.0)  # of a higher rung, yet one that has learned is first
    assert halving.last_promotion([higher, record(4, [0.02])], RUNGS).number == 4
    tried = record(3, [0.003, 0.0, 0.0], Status.PRUNED)
    assert halving.last_promotion([*useless[:2], tried], RUNGS) is None
    assert halving.last_promotion([*useless[:2], tried, record(4, [0.02])], RUNGS).number == 4


def simulate(driver, accuracy):
    """Run the search of a driver; `accuracy` of a trial's number and epoch."""
    while True:
        try:
            segment = driver.next_segment()
        except StopIteration:
            return
        workdir = driver.workdir(driver.records[segment.number])
        for epoch in range(segment.epochs_reported + 1, segment.until + 1):
            workdir.mkdir(parents=True, exist_ok=True)
            (workdir / "last.pt").write_text("a checkpoint")
            ap = helpers.equal_ap(accuracy(segment.number, epoch))
            driver.handle_report(
                SegmentReport(
                    number=segment.number,
                    ended=epoch == segment.until,
                    epoch=EpochResult(
                        epoch=epoch,
                        losses={"total": 1.0},
                        lr=0.1,
                        seconds=1.0,
                        ap=ap if epoch in segment.evaluate_at else None,
                    ),
                )
            )


def test_a_search_with_some_that_learn_nothing(start_search):
    driver = start_search(trials=8)
    simulate(driver, lambda number, epoch: 0.3 if number % 2 == 0 else 0.0)
    driver.close()
    records = [r for r in driver.records if r.status is not Status.INFEASIBLE]
    useless = [r for r in records if r.number % 2]
    assert len(useless) > 1
    assert {(r.status, r.reason, len(r.epochs)) for r in useless} == {
        (Status.PRUNED, "learned nothing: AP of all levels below 0.01 at epoch 1", 1)
    }
    assert best_of(records).number % 2 == 0
    assert all(r in informative_trials(records) for r in useless)
    assert learning_notes(records) == [
        f"{len(useless)} of 8 trained designs have learned nothing, such as trial "
        f"{useless[0].number}: AP of all levels below 0.01 at epoch 1"
    ]


def test_a_search_in_which_only_the_baseline_learns(start_search):
    driver = start_search(trials=4)
    simulate(driver, lambda number, epoch: 0.0 if number else 0.3)
    in_full = [r for r in driver.records[1:] if len(r.epochs) == driver.rungs[-1]]
    assert len(in_full) == 1 and in_full[0].status is Status.PRUNED
    assert not (driver.workdir(in_full[0]) / "last.pt").exists()
    assert best_of(driver.records).number == 0
    driver.close()
    driver.reopen()  # a longer search promotes only those that were pruned at a rung
    assert {r.status for r in driver.records if r in in_full} == {Status.PRUNED}
    assert driver.records[in_full[0].number].reason.startswith("learned nothing: ")


def test_a_search_in_which_nothing_learns_ends_saying_so(start_search, monkeypatch, capsys):
    driver = start_search(trials=4)
    simulate(driver, lambda number, epoch: 0.004)
    baseline = driver.records[0]
    assert baseline.status is Status.COMPLETED and len(baseline.epochs) == driver.rungs[-1]
    assert learning_notes(driver.records)[1].startswith("the baseline has learned nothing: AP")
    assert best_of(driver.records) is None and driver.finished()
    assert front_of(driver.completed(), "macs") == []
    assert front_data(driver.records).front == [] and front_data(driver.records).best is None

    monkeypatch.setattr(run_search, "trial_setup", lambda *args: driver._setup)
    space = driver.space
    with pytest.raises(PartialFailure, match="none of its designs has learned anything") as error:
        run_search.run_search(
            SearchOptions(space=str(space.path), trials=4, resume=True),
            driver.study,
            space,
            SimpleNamespace(),
            NullTracker(),
            Shares(cpus=1, gpus=0.0, concurrency=1),
            ray_ready=lambda: pytest.fail("nothing is left to train"),
        )
    assert error.value.result["best"] is None and error.value.result["trials"]["pruned"] == 4
    assert "retrain" not in capsys.readouterr().out
    assert read_progress(driver.study.folder).ended  # for those who follow it

    parser = choose.make_parser()
    flags = ["--runs-dir", str(driver.study.folder.parent), "--study", driver.study.name]
    with pytest.raises(UserError, match="none of its trials has learned anything"):
        choose.run(parser.parse_args(flags))


def test_completed_trials_of_older_studies_that_learned_nothing_are_not_chosen():
    old = [
        record(0, [0.5, 0.5, 0.5], Status.COMPLETED),
        record(1, [0.0, 0.0, 0.0], Status.COMPLETED, speed=5.0),
    ]
    assert [r.number for r in learned(old)] == [0] and best_of(old).number == 0
    assert [r.number for r in front_of(old, "macs")] == [0]


def test_weights_are_not_inherited_from_them(tmp_path):
    good, bad = record(1, [0.3]), record(2, [0.0])
    for trial in (good, bad):
        (tmp_path / str(trial.number)).mkdir()
        (tmp_path / str(trial.number) / "last.pt").touch()
    child = record(3, [])
    assert parent_of(child, [bad], lambda r: tmp_path / str(r.number)) is None
    assert parent_of(child, [bad, good], lambda r: tmp_path / str(r.number)) is good
