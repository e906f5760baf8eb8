"""The progress of a search: redrawn in place on a terminal, one line per result elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.engine.halving import certain_epochs, epochs_expected, epochs_of_search, target_epoch
from nas.terminal.format import duration
from nas.terminal.progress_bars import live_console, print_dated
from trials.names import describe
from trials.record import Status, TrialRecord, best_of, rank
from trials.stored import PROGRESS, ProgressFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nas.engine.driver import Driver

ENOUGH_RESULTS = 8
"""Designs with a result from which on the observed share of promotions counts."""
WRITE_SECONDS = 5.0
"""Shortest time between two states of progress.json."""


class SearchProgress:
    """Trials by status, the best score so far and the time left.

    On a terminal a display that is redrawn in place; elsewhere a dated line for each trial that
    reaches a rung or ends, as lines of a log.

    Args:
        interval: seconds between two looks at the study.
        folder: where progress.json is written, for `analysis.watch`; None means nowhere.
    """

    def __init__(
        self,
        driver: Driver,
        interval: float = 0.5,
        clock: Callable[[], float] = time.time,
        folder: Path | None = None,
    ):
        from rich.live import Live

        self._driver, self._interval, self._clock = driver, interval, clock
        self._folder, self._written = folder, 0.0
        self._started, self._looked = clock(), 0.0
        records = driver.records
        self._epochs_before = sum(r.epochs_spent for r in records)
        self._known = {r.number: _state(r) for r in records}
        console, self.live = live_console()
        self._display = Live(console=console, auto_refresh=False, transient=True)
        if self.live:
            self._display.start()

    def tick(self) -> None:
        """To be called often."""
        if self._clock() - self._looked < self._interval:
            return
        self._looked = self._clock()
        if self._folder is not None and self._looked - self._written >= WRITE_SECONDS:
            self._written = self._looked
            left = self.seconds_left(self._driver.records)
            ProgressFile(ended=False, seconds_left=left).write(self._folder / PROGRESS)
        if self.live:
            self._display.update(self.display(), refresh=True)
        else:
            self._print_results()

    def close(self) -> None:
        """Remove the display, or print the results of the last moments."""
        if self.live:
            self._display.stop()
        else:
            self._print_results()

    # -- a terminal ---------------------------------------------------------------------------

    def display(self) -> RenderableType:
        """Epochs and time left, designs by status, and the best trial, in four lines."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        driver, records = self._driver, self._driver.records
        trained = sum(r.epochs_spent for r in records)
        total = max(trained, round(trained + self._epochs_left(records)))
        counts = Counter(r.status for r in records)
        states = ", ".join(f"{counts[s]} {s.value}" for s in Status if counts[s])
        lines = Table.grid(padding=(0, 2), expand=True)
        lines.add_column(no_wrap=True)
        lines.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        bar = Table.grid(padding=(0, 1))
        bar.add_column(width=20)
        bar.add_column(no_wrap=True, overflow="ellipsis")
        left = _left_text(self.seconds_left(records))
        bar.add_row(
            ProgressBar(total=max(total, 1), completed=trained),
            f"{left + ', ' if left else ''}{trained:,} of about {total:,} epochs",
        )
        lines.add_row("search", bar)
        lines.add_row("designs", f"{driver.num_sampled():,} of {driver.trials:,}: {states}")
        if (best := _best_so_far(records)) is not None:
            lines.add_row("best", _best_text(best, records))
            lines.add_row("", Text(describe(best.detector), style="dim"))
        return lines

    # -- a log --------------------------------------------------------------------------------

    def _print_results(self) -> None:
        records = self._driver.records
        for record in records:
            rung, ended = self._known.get(record.number, (-1, False))
            self._known[record.number] = _state(record)
            is_new = record.rung > rung or (record.status.ended and not ended)
            if is_new and record.status is not Status.INFEASIBLE:
                print_dated(self.line(record, records))

    def line(self, record: TrialRecord, records: Sequence[TrialRecord]) -> str:
        """ "7 of 20 designs | trial 8 completed: score 1.523 after 7 epochs | best score 1.602:
        trial 4 | ~12 min left"; a paused trial "waits" for its promotion, a running one
        "continues"."""
        driver = self._driver
        tried = sum(
            r.number != 0
            and r.status is not Status.INFEASIBLE
            and (r.status is not Status.RUNNING or r.rung >= 0)  # promoted ones have a result, too
            for r in records
        )
        name = "baseline" if record.number == 0 else f"trial {record.number}"
        what = record.status.value if record.status.ended else "continues"
        if record.status is Status.PAUSED:
            what = "waits"
        text = f"{name} {what}"
        if record.status.ended and record.reason:
            text += f": {record.reason}"
        elif record.score is not None:
            text += f": score {record.score:.3f} after {_epochs(record)}"
        parts = [f"{tried:,} of {driver.trials:,} designs", text]
        if (best := best_of(records)) is not None:
            parts.append(f"best score {best.score:.3f}: {_name(best)}")
        return " | ".join([*parts, *filter(None, [_left_text(self.seconds_left(records))])])

    # -- time left ----------------------------------------------------------------------------

    def seconds_left(self, records: Sequence[TrialRecord]) -> float | None:
        """Estimated seconds until the search ends; None before the first epoch of this run.

        All epochs to come at the rate of this run so far; but not before each running trial is
        through with its segment at its own pace.
        """
        now = self._clock()
        epochs_of_run = sum(r.epochs_spent for r in records) - self._epochs_before
        if epochs_of_run < 1:
            return None
        seconds_per_epoch = (now - self._started) / epochs_of_run
        left = [seconds_per_epoch * self._epochs_left(records)]
        left += [self._segment_seconds(r, now) for r in records if r.status is Status.RUNNING]
        return max(left)

    def _segment_seconds(self, record: TrialRecord, now: float) -> float:
        """Estimated seconds until a running trial is at its next rung."""
        if not record.epochs:
            return 0.0
        missing = target_epoch(record, self._driver.rungs) - len(record.epochs)
        each = sum(e.seconds for e in record.epochs) / len(record.epochs)
        return max(0.0, missing * each - (now - (record.epochs[-1].ended or now)))

    def _epochs_left(self, records: Sequence[TrialRecord]) -> float:
        """Expected epochs to come: as many promotions as 1/η of a rung, or as there were so far in
        this study if these are more (`promote: front`); at least what is certain."""
        driver = self._driver
        rungs, eta = driver.rungs, driver.space.eta
        results = [r for r in records if r.number and r.rung >= 0 and not r.reused]
        per_design = epochs_expected(1, rungs, eta) - rungs[-1]
        more = 1.0
        if len(results) >= ENOUGH_RESULTS:
            more = max(1.0, sum(len(r.epochs) for r in results) / len(results) / per_design)
        trained = sum(r.epochs_spent for r in records)
        expected = epochs_of_search(records, driver.trials, rungs, eta, more) - trained
        unsampled = max(0, driver.trials - driver.num_sampled())
        return max(expected, certain_epochs(records, unsampled, rungs))


def _state(record: TrialRecord) -> tuple[int, bool]:
    """What grows when a trial has a new result: the rung, and whether it has ended."""
    return record.rung, record.status.ended


def _name(record: TrialRecord) -> str:
    return "the baseline" if record.number == 0 else f"trial {record.number}"


def _epochs(record: TrialRecord) -> str:
    return "1 epoch" if len(record.epochs) == 1 else f"{len(record.epochs)} epochs"


def _best_so_far(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best completed trial; before there is one, the one with the best score so far."""
    scored = [r for r in records if r.score is not None and not r.why_nothing_learned()]
    return best_of(records) or min(scored, key=rank, default=None)


def _best_text(best: TrialRecord, records: Sequence[TrialRecord]) -> str:
    """ "score 1.523: trial 8 after 7 epochs (the baseline has 1.401)"."""
    text = f"score {best.score:.3f}: {_name(best)} after {_epochs(best)}"
    baseline = records[0]
    if best.number and baseline.score is not None and baseline.status is Status.COMPLETED:
        text += f" (the baseline has {baseline.score:.3f})"
    return text


def _left_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return "almost done" if seconds < 1 else f"~{duration(seconds)} left"
