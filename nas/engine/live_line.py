"""The live line of a search: its progress on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.statistics.pareto import front_of
from nas.engine.halving import certain_epochs, epochs_expected
from nas.terminal.format import duration
from trials.names import describe
from trials.record import Status, TrialRecord, best_of

if TYPE_CHECKING:
    from nas.engine.driver import Driver


class LiveLine:
    """Trials by status, the best score so far and the time left, updated in place on stderr.

    Without effect if stderr is not a terminal.

    Args:
        interval: seconds between updates.
    """

    def __init__(self, driver: Driver, interval: float = 0.5):
        self._driver, self._interval, self._updated = driver, interval, 0.0
        self._enabled = sys.stderr.isatty()

    def tick(self) -> None:
        if not self._enabled or time.time() - self._updated < self._interval:
            return
        self._updated = time.time()
        self._show(self.text())

    def close(self) -> None:
        if self._enabled:
            self._show("")
            print("\r", end="", file=sys.stderr, flush=True)

    def _show(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width), end="", file=sys.stderr, flush=True)

    def text(self) -> str:
        """ "5/20 designs · 2 running · 3 paused · 1 completed · front 1 · ~3 min left · best 1.234:
        r000 mnv1 w0.25 …"; the name comes last, as a narrow terminal cuts off the end."""
        driver, records = self._driver, self._driver.records
        counts = Counter(r.status for r in records)
        parts = [f"{driver.num_sampled()}/{driver.trials} designs"]
        parts += [f"{counts[s]} {s.value}" for s in Status if counts[s]]
        completed = driver.completed()
        if completed:
            parts.append(f"front {len(front_of(completed))}")
        seconds_left = self._seconds_left(records)
        if seconds_left is not None:
            parts.append(f"~{duration(seconds_left)} left")
        if best := best_of(records):
            parts.append(f"best {best.score:.3f}: r{best.number:03d} {describe(best.detector)}")
        return " · ".join(parts)

    def _seconds_left(self, records: Sequence[TrialRecord]) -> float | None:
        """Estimate from the expected number of epochs; None before the first epoch of this run."""
        driver = self._driver
        epochs_trained = sum(r.epochs_spent for r in records)
        epochs_of_run = epochs_trained - driver.epochs_before
        if epochs_of_run < 1:
            return None
        expected = epochs_expected(driver.trials, driver.rungs, driver.space.eta) - epochs_trained
        unsampled = max(0, driver.trials - driver.num_sampled())
        certain = certain_epochs(records, unsampled, driver.rungs)
        seconds_per_epoch = (time.time() - driver.started) / epochs_of_run
        return seconds_per_epoch * max(expected, certain)
