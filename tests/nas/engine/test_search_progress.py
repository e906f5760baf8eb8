"""A search shows its progress on a terminal, and writes a line per result elsewhere."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from nas.engine import search_progress
from nas.engine.search_progress import SearchProgress
from trials.record import Status
from trials.stored import ProgressFile, read_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def driver(tiny_study):
    base = tiny_study.records[0]
    more = [
        base.evolve(number=n, status=status, epochs=())
        for n, status in enumerate(
            (Status.RUNNING, Status.PAUSED, Status.PAUSED, Status.PRUNED, Status.FAILED), start=3
        )
    ]
    return SimpleNamespace(
        records=[*tiny_study.records, *more],
        trials=9,
        num_sampled=lambda: 6,
        rungs=(1, 2),
        space=SimpleNamespace(eta=2),
    )


def shown(progress: SearchProgress, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(progress.display())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_display_counts_every_status_and_names_the_best(driver):
    search, designs, best, name = shown(SearchProgress(driver), 120)
    assert re.match(r"search +━+╸ +2 of about \d+ epochs", search)
    assert designs == (
        "designs  6 of 9: 1 running, 2 paused, 2 completed, 1 pruned, 1 infeasible, 1 failed"
    )
    assert re.fullmatch(
        r"best     score 2\.\d{3}: trial 1 after \d epochs? \(the baseline has 2\.\d{3}\)", best
    )
    assert name.strip() == "mnv1 w4-8-8-8-8 d1-1-1-1-1 stem4 fpn8 P4-P5 ssh retinaface"


@pytest.mark.parametrize("width", [40, 80])
def test_the_display_fits_the_terminal(driver, width):
    lines = shown(SearchProgress(driver), width)
    assert len(lines) == 4 and max(map(len, lines)) <= width


def test_on_a_terminal_the_display_is_redrawn_and_removed(driver, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    clock = Clock()
    progress = SearchProgress(driver, clock=clock)
    progress.tick()
    written = sys.stderr.getvalue()
    assert "designs" in written and "6 of 9" in written
    progress.tick()  # too early for an update
    assert sys.stderr.getvalue() == written
    progress.close()
    assert sys.stderr.getvalue().endswith("\x1b[2K")  # the display's last line, erased
    assert "trial" not in sys.stdout.getvalue()


@pytest.mark.parametrize("terminals", [(), ("stderr",)])
def test_elsewhere_each_result_is_a_dated_line(driver, monkeypatch, terminals):
    """Also if only stderr is a terminal: stdout is a log."""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stdout", log)
    for name in terminals:
        monkeypatch.setattr(sys, name, Terminal())
    clock = Clock()
    progress = SearchProgress(driver, clock=clock)
    progress.tick()
    assert log.getvalue() == ""  # what an earlier run has printed
    epochs = driver.records[1].epochs
    waiting = driver.records[3].evolve(status=Status.PAUSED, rung=0, epochs=epochs[:1])
    assert waiting.score is not None
    driver.records[3] = waiting
    clock.now += 10
    progress.tick()
    driver.records[3] = waiting.evolve(status=Status.RUNNING)  # promoted: nothing new
    clock.now += 10
    progress.tick()
    driver.records[3] = waiting.evolve(status=Status.FAILED, reason="loss is NaN")
    infeasible = driver.records[2].evolve(number=len(driver.records))
    driver.records.append(infeasible)
    progress.close()
    first, second = log.getvalue().splitlines()
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
    best = r" \| best score 2\.\d{3}: trial 1 \| ~\d+ \w+ left"
    assert re.fullmatch(
        date + r"6 of 9 designs \| trial 3 waits: score \d\.\d{3} after 1 epoch" + best, first
    )
    assert re.fullmatch(date + r"6 of 9 designs \| trial 3 failed: loss is NaN" + best, second)


def test_the_time_left_is_written_for_those_who_follow_the_search(driver, tmp_path):
    clock = Clock()
    progress = SearchProgress(driver, clock=clock, folder=tmp_path)
    progress.tick()
    assert read_progress(tmp_path) == ProgressFile(ended=False)
    progress._epochs_before = 0
    clock.now += 4
    progress.tick()  # too early
    assert read_progress(tmp_path).seconds_left is None
    clock.now += 1
    progress.tick()
    left = progress.seconds_left(driver.records)
    assert left > 0 and read_progress(tmp_path).seconds_left == left


def test_a_promoted_design_counts_as_tried(driver):
    """Else the count would fall whenever a trial is promoted."""
    progress = SearchProgress(driver)
    paused = driver.records[4]
    for status in (Status.PAUSED, Status.RUNNING):
        driver.records[4] = paused.evolve(status=status, rung=0)
        assert progress.line(driver.records[1], driver.records).startswith("5 of 9 designs | ")


def test_the_first_result_is_the_baseline_that_continues(driver, capsys):
    baseline = driver.records[0]
    driver.records = [baseline.evolve(status=Status.RUNNING, epochs=(), rung=-1, ended=None)]
    clock = Clock()
    progress = SearchProgress(driver, clock=clock)
    driver.records = [
        baseline.evolve(status=Status.RUNNING, epochs=baseline.epochs[:1], rung=0, ended=None)
    ]
    progress.close()
    assert " | baseline continues: score " in capsys.readouterr().out


def test_the_time_left_counts_what_is_still_running(driver):
    """More promotions than expected leave no expected epochs, but running ones take their time."""
    clock = Clock()
    progress = SearchProgress(driver, clock=clock)
    progress._epochs_before = 0
    clock.now += 100
    spent = sum(record.epochs_spent for record in driver.records)
    driver.trials, driver.rungs = 6, (1,)  # 7 epochs expected
    driver.records = [r.evolve(epochs=r.epochs * 4) if r.epochs else r for r in driver.records]
    assert progress.seconds_left(driver.records) == pytest.approx(100.0 / (4 * spent))
    driver.trials = 9  # three designs are not sampled yet
    assert progress.seconds_left(driver.records) == pytest.approx(4 * 100.0 / (4 * spent))


def test_the_time_left_is_at_least_that_of_the_slowest_running_trial(driver):
    """The last trial runs alone: its epochs count at their own pace, not at that of all workers."""
    clock = Clock()
    progress = SearchProgress(driver, clock=clock)
    progress._epochs_before = 0
    clock.now += 10
    driver.trials, driver.rungs = 6, (1, 2)
    epoch = driver.records[1].epochs[0]
    slow = epoch.from_dict(epoch.to_dict() | {"seconds": 500.0, "ended": clock.now - 20})
    driver.records[3] = driver.records[3].evolve(epochs=(slow,), rung=0)
    assert progress.seconds_left(driver.records) == pytest.approx(480)


def test_promotions_that_are_more_than_expected_stay_so(driver, monkeypatch):
    monkeypatch.setattr(search_progress, "ENOUGH_RESULTS", 2)
    progress = SearchProgress(driver)
    epochs = driver.records[1].epochs[:1] * 2
    all_promoted = [
        r.evolve(status=Status.COMPLETED, epochs=epochs, rung=1) for r in driver.records
    ]
    driver.records, driver.trials = all_promoted, 100
    # 100 designs of 2 epochs each and the baseline's 2, less those trained
    spent = sum(r.epochs_spent for r in all_promoted)
    assert progress._epochs_left(all_promoted) == pytest.approx(202 - spent)


def test_nothing_left_is_almost_done():
    assert search_progress._left_text(0.2) == "almost done"
    assert search_progress._left_text(None) == ""
    assert search_progress._left_text(200) == "~3 min left"
