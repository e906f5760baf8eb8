"""What a search shows: one live line on a terminal, and a table at the end."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence

from analysis.pareto import front_of
from trials.names import describe
from trials.record import Status, TrialRecord


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
        """"5/20 designs · 2 running · 3 paused · 1 completed · front 1 · ~3 min left · best 1.234:
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
            best = max(completed, key=lambda r: r.score)
            parts.append(f"best {best.score:.3f}: r{best.number:03d} {describe(best.detector)}")
        return " · ".join(parts)

    def _time_left(self, records: Sequence[TrialRecord]) -> float | None:
        """Seconds, by the epochs that rungs let a mean design have; none before the first one."""
        driver = self._driver
        done = sum(r.epochs_spent for r in records) - driver.epochs_before
        if done < 1:
            return None
        left = epochs_expected(driver.trials, driver.rungs, driver.space.eta) - done \
            - driver.epochs_before
        return max(0.0, (time.time() - driver.started) / done * left)


def epochs_expected(trials: int, rungs: Sequence[int], eta: float) -> float:
    """Epochs a search trains: all designs to the first rung, 1/η of them to the next, and so on,
    and the baseline in full."""
    total, share, before = float(rungs[-1]), 1.0, 0
    for epochs in rungs:
        total += trials * share * (epochs - before)
        share, before = share / eta, epochs
    return total


def print_trials(records: Sequence[TrialRecord], title: str) -> None:
    """A table of trials, best score first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    timed = any(record.cost.latency_ms is not None for record in records)
    for name in ("trial", "design", "params", "MACs", *(["ms"] if timed else []), "easy", "medium",
                 "hard", "accuracy", "speed", "score"):
        table.add_column(name, justify="left" if name in ("trial", "design") else "right",
                         no_wrap=name != "design")
    for record in sorted(records, key=lambda r: -r.score):
        note = " (baseline)" if record.number == 0 else ""
        table.add_row(f"r{record.number:03d}", describe(record.detector) + note,
                      count(record.cost.params), count(record.cost.macs),
                      *([f"{record.cost.latency_ms:.1f}"] if timed else []),
                      *(f"{record.ap[level]:.3f}" for level in ("easy", "medium", "hard")),
                      f"{record.accuracy_score:.3f}", f"{record.speed_score:.3f}",
                      f"{record.score:.3f}")
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)


def count(value: float) -> str:
    """426608 → "0.427 M", 1029700000 → "1.030 G"."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.1 or letter == "k":
            return f"{value / factor:.3f} {letter}"
    raise AssertionError(value)


def duration(seconds: float) -> str:
    """"40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
