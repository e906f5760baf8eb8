"""What a search shows: one live line on a terminal, and a table at the end."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence

from analysis.statistics.pareto import front_of
from nas.engine.halving import epochs_expected
from nas.terminal.format import duration
from trials.names import describe
from trials.record import Status, TrialRecord, rank


class LiveLine:
    """Trials by status, the best so far and the time left, rewritten in place.

    Silent where stderr is no terminal.
    """

    def __init__(self, driver, every: float = 0.5):
        self._driver, self._every, self._last = driver, every, 0.0
        self._shown = sys.stderr.isatty()

    def tick(self) -> None:
        if not self._shown or time.time() - self._last < self._every:
            return
        self._last = time.time()
        self._show(self.text())

    def close(self) -> None:
        if self._shown:
            self._show("")
            print("\r", end="", file=sys.stderr, flush=True)

    def _show(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width), end="", file=sys.stderr, flush=True)

    def text(self) -> str:
        """ "5/20 designs · 2 running · 3 paused · 1 completed · front 1 · ~3 min left · best 1.234:
        r000 mnv1 w0.25 …"; what a narrow terminal cuts off is the best design's name."""
        driver, records = self._driver, self._driver.records
        counts = Counter(r.status for r in records)
        parts = [f"{driver.sampled()}/{driver.trials} designs"]
        parts += [f"{counts[s]} {s.value}" for s in Status if counts[s]]
        completed = driver.completed()
        if completed:
            parts.append(f"front {len(front_of(completed))}")
        left = self._time_left(records)
        if left is not None:
            parts.append(f"~{duration(left)} left")
        if completed:
            best = min(completed, key=rank)
            parts.append(f"best {best.score:.3f}: r{best.number:03d} {describe(best.detector)}")
        return " · ".join(parts)

    def _time_left(self, records: Sequence[TrialRecord]) -> float | None:
        """Seconds, by the epochs that rungs let a mean design have; none before the first one."""
        driver = self._driver
        done = sum(r.epochs_spent for r in records) - driver.epochs_before
        if done < 1:
            return None
        left = (
            epochs_expected(driver.trials, driver.rungs, driver.space.eta)
            - done
            - driver.epochs_before
        )
        return max(0.0, (time.time() - driver.started) / done * left)
