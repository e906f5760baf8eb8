"""Progress: bars that are redrawn on a terminal, dated lines elsewhere. No heavy imports (torch,
Ray, MLflow)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from nas.terminal.format import duration

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 30.0
"""Without a terminal: shortest time between two lines about the same step."""


def live_console() -> tuple[Console, bool]:
    """The console for displays that are redrawn in place, and whether there may be any: only if
    stdout is a terminal, too, since lines on it would otherwise be lost or written between them."""
    from rich.console import Console

    console = Console(stderr=True)
    can_redraw = console.is_terminal and not console.is_dumb_terminal
    return console, can_redraw and sys.stdout.isatty()


def print_dated(text: str) -> None:
    """Print a line with the time of day at once, for a log that somebody follows."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", flush=True)


class _Pace:
    """Says when the next line is due: LINE_SECONDS after the last one, or after the start."""

    def __init__(self, clock: Callable[[], float]):
        self._clock, self._last = clock, clock()

    def due(self) -> bool:
        return self._clock() - self._last >= LINE_SECONDS

    def restart(self) -> None:
        self._last = self._clock()


class TrainingBar(AbstractContextManager):
    """Epoch, loss, AP and time left of a training of `epochs` epochs.

    `step`, the `progress` of `detector.training.fit.fit`, is called after each step, and `epoch`
    after each epoch; it prints a line for each evaluated one. Without a terminal there is also a
    line for the first epoch, and for others at most every LINE_SECONDS.
    """

    def __init__(self, epochs: int, clock: Callable[[], float] = time.monotonic):
        from rich.progress import BarColumn, Progress, TextColumn

        self._epochs, self._ap, self._clock = epochs, "", clock
        self._started: float | None = None
        self._first = 0
        self._left = ""
        self._epochs_here = 0
        self._pace = _Pace(clock)
        console, self._live = live_console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            disable=not self._live,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=None, state="")

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def step(self, epoch: int, step: int, steps: int, losses: Mapping[str, float]) -> None:
        done, total = (epoch - 1) * steps + step, self._epochs * steps
        now = self._clock()
        if self._started is None:  # the first step of this run, which may resume an earlier one
            self._started, self._first = now, done
        if done > self._first:
            seconds = (now - self._started) / (done - self._first) * (total - done)
            self._left = f", {duration(seconds)} left"
        state = f"loss {losses['total']:.3f}{self._ap}{self._left}"
        self._bar.update(
            self._task,
            description=f"epoch {epoch}/{self._epochs}",
            total=total,
            completed=done,
            state=state,
        )
        if not self._live and step < steps and self._pace.due():
            self._print(f"epoch {epoch}/{self._epochs}, step {step}/{steps}: {state}")

    def epoch(
        self, epoch: int, losses: Mapping[str, float], ap: Mapping[str, float] | None
    ) -> None:
        self._epochs_here += 1
        line = f"epoch {epoch}/{self._epochs}: loss {losses['total']:.3f}"
        if ap is not None:
            levels = "  ".join(f"{level} {value:.3f}" for level, value in ap.items())
            self._ap = f", AP {sum(ap.values()) / len(ap):.3f}"
            line += f", AP {levels}"
        left = self._left if epoch < self._epochs else ""
        if self._live and ap is not None:
            print(line, flush=True)
        elif not self._live and (ap is not None or self._epochs_here == 1 or self._pace.due()):
            self._print(line + left)

    def _print(self, line: str) -> None:
        print_dated(line)
        self._pace.restart()


class ImagesBar(AbstractContextManager):
    """Images processed; `update` is the `progress` of `detector.inference.predict.detect`.

    Without a terminal a line at most every LINE_SECONDS.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic):
        from rich.progress import Progress

        self._what, self._pace = what, _Pace(clock)
        console, self._live = live_console()
        self._bar = Progress(console=console, disable=not self._live, transient=True)
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> ImagesBar:
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
        if not self._live and self._pace.due():
            print_dated(f"{self._what}: {done:,} of {total:,}")
            self._pace.restart()
