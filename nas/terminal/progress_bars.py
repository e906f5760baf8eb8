"""Progress bars, shown on a terminal only. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

from nas.terminal.format import duration


class TrainingBar(AbstractContextManager):
    """Epoch, loss, AP and time left of a training of `epochs` epochs.

    `step`, the `progress` of `detector.training.fit.fit`, is called after each step, and `epoch`
    after each epoch; it prints a line for each evaluated one.
    """

    def __init__(self, epochs: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._epochs, self._ap = epochs, ""
        self._started: float | None = None
        self._first = 0
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            disable=not console.is_terminal,
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
        now = time.monotonic()
        if self._started is None:  # the first step of this run, which may resume an earlier one
            self._started, self._first = now, done
        left = ""
        if done > self._first:
            seconds = (now - self._started) / (done - self._first) * (total - done)
            left = f", {duration(seconds)} left"
        self._bar.update(
            self._task,
            description=f"epoch {epoch}/{self._epochs}",
            total=total,
            completed=done,
            state=f"loss {losses['total']:.3f}{self._ap}{left}",
        )

    def epoch(
        self, epoch: int, losses: Mapping[str, float], ap: Mapping[str, float] | None
    ) -> None:
        if ap is not None:
            levels = "  ".join(f"{level} {value:.3f}" for level, value in ap.items())
            self._ap = f", AP {sum(ap.values()) / len(ap):.3f}"
            print(
                f"epoch {epoch}/{self._epochs}: loss {losses['total']:.3f}, AP {levels}", flush=True
            )


class ImagesBar(AbstractContextManager):
    """Images processed; `update` is the `progress` of `detector.inference.predict.detect`."""

    def __init__(self, what: str):
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bar = Progress(console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> ImagesBar:
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
