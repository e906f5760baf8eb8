"""The live line summarises the records on a terminal; elsewhere nothing is printed."""

import io
import sys
import time
from types import SimpleNamespace

import pytest

from nas.engine.live_line import LiveLine
from trials.record import Status


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def driver(tiny_study):
    base = tiny_study.records[0]
    more = [
        base.evolve(number=n, status=status, epochs=())
        for n, status in enumerate(
            (Status.RUNNING, Status.PAUSED, Status.PAUSED, Status.PRUNED, Status.FAILED), start=3
        )
    ]
    records = [*tiny_study.records, *more]
    return SimpleNamespace(
        records=records,
        trials=9,
        num_sampled=lambda: 6,
        epochs_before=0,
        started=0.0,
        rungs=(1, 2),
        completed=lambda: records[:2],
        space=SimpleNamespace(eta=2),
    )


def test_it_counts_every_status_and_names_the_best(driver):
    text = LiveLine(driver).text()
    assert text.startswith(
        "6/9 designs · 1 running · 2 paused · 2 completed · 1 pruned · "
        "1 infeasible · 1 failed · front 1 · ~"
    )
    assert " left · best 2." in text
    assert text.endswith(": r001 mnv1 w4-8-8-8-8 d1-1-1-1-1 stem4 fpn8 P4-P5 ssh retinaface")


def test_it_fits_the_terminal_and_is_cleared(driver, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = LiveLine(driver)
    line.tick()
    line.tick()  # too early for an update
    assert sys.stderr.getvalue() == "\r" + line.text()[:59]
    line.close()
    assert sys.stderr.getvalue().endswith("\r" + " " * 59 + "\r")


def test_nothing_is_printed_without_a_terminal(driver, capsys):
    line = LiveLine(driver)
    line.tick()
    line.close()
    assert capsys.readouterr() == ("", "")


def test_the_time_left_counts_what_is_still_running(driver, monkeypatch):
    """More promotions than expected leave no expected epochs, but running ones take their time."""
    monkeypatch.setattr(time, "time", lambda: 100.0)
    spent = sum(record.epochs_spent for record in driver.records)
    driver.trials, driver.rungs = 6, (1,)  # 7 epochs expected
    driver.records = [r.evolve(epochs=r.epochs * 4) if r.epochs else r for r in driver.records]
    assert LiveLine(driver)._seconds_left(driver.records) == pytest.approx(100.0 / (4 * spent))
    driver.trials = 9  # three designs are not sampled yet
    assert LiveLine(driver)._seconds_left(driver.records) == pytest.approx(4 * 100.0 / (4 * spent))
