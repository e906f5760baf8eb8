"""One epoch of a training: its steps, and its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from detector.base.errors import TrainingError
from detector.config.recipe import Recipe
from detector.training.distributed import Worker
from detector.training.feed import Feed
from detector.training.optim import lr_at
from detector.training.state import TrainingState
from detector.training.step import set_train_mode
from detector.training.stepper import Stepper, StepResult

Progress = Callable[[int, int, int, Mapping[str, float]], None]
"""Called with epoch, step (from 1), steps of the epoch, and each loss term with `total`."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The result of one epoch."""

    epoch: int
    """1 after the first epoch."""
    losses: dict[str, float]
    """Mean over the epoch of each loss term, and of `total`, their weighted sum."""
    lr: float
    """Learning rate of the last step."""
    seconds: float
    """Training and evaluation."""
    ap: dict[str, float] | None
    """easy, medium, hard AP in [0, 1] on the hold-out; None if not evaluated."""
    images: int
    """Training images seen in the epoch."""


class EpochSteps:
    """Takes the steps of one epoch, and averages their losses.

    Args:
        images: training images.
        last: the epoch at which this training stops.
    """

    def __init__(
        self, epoch: int, images: int, recipe: Recipe, last: int, progress: Progress | None
    ):
        self.epoch = epoch
        self.count = max(images // recipe.batch_size, 1)
        """Steps."""
        self.lr = 0.0
        """Learning rate of the last step taken."""
        self._recipe, self._last, self._progress = recipe, last, progress
        self._sums: dict[str, float] = {}
        self._finite_steps = 0

    def run(self, state: TrainingState, feed: Feed, stepper: Stepper, worker: Worker) -> None:
        """Takes all steps.

        Raises:
            TrainingError: a loss is not finite; with loss scaling, if it stays so.
        """
        set_train_mode(state.model, self._recipe)
        for step, parts in enumerate(feed.epoch(self.epoch, worker)):
            self.lr = self._lr_at(step)
            remaining = (self._last - self.epoch + 1) * self.count - step
            stepper.step(step, parts, self.lr, remaining)
            if state.ema:
                state.ema.update(state.model)
            for result in stepper.results():
                self._add(result)
        for result in stepper.flush():
            self._add(result)
        if not self._finite_steps:
            raise _not_finite(f"any step of epoch {self.epoch}", result, self.lr)

    def mean_losses(self) -> dict[str, float]:
        return {name: value / self._finite_steps for name, value in self._sums.items()}

    def _lr_at(self, step: int) -> float:
        return lr_at((self.epoch - 1) * self.count + step, self.count, self._recipe)

    def _add(self, result: StepResult) -> None:
        is_finite = all(map(math.isfinite, result.losses.values()))
        scale_exhausted = result.scale is not None and result.scale < 1
        if scale_exhausted or not (is_finite or result.scale is not None):
            where = f"epoch {self.epoch}, step {result.step + 1} of {self.count}"
            raise _not_finite(where, result, self._lr_at(result.step))
        if is_finite:
            self._finite_steps += 1
            for name, value in result.losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        if self._progress:
            self._progress(self.epoch, result.step + 1, self.count, result.losses)


def _not_finite(where: str, result: StepResult, lr: float) -> TrainingError:
    losses = ", ".join(f"{name} {value:.4g}" for name, value in result.losses.items())
    remedy = "optimizer.clip_norm" if result.scale is None else "bf16 or fp32"
    return TrainingError(
        f"loss not finite at {where} ({losses}); a lower learning rate than {lr:g} or {remedy} "
        "may help"
    )
