"""The options of a retrain."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, fields
from pathlib import Path

from detector.base.errors import UserError

AUTO = "auto"
"""Chooses the batch size for the device."""


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """The flags of a retrain; None leaves the choice to the study, the preset or the recipe."""

    study: str | None = None
    runs_dir: Path = Path("runs")
    trial: int | None = None
    top: int | None = None
    """Retrain this many of the best trials, one after the other."""
    preset: str | None = None
    data: str | None = None
    fraction: float | None = None
    holdout: float | None = None
    with_holdout: bool = False
    epochs: int | None = None
    size: int | None = None
    """Side of the square training crops, px."""
    batch_size: int | str | None = None
    """Images per step, or AUTO."""
    recipe: str | None = None
    """File with changes to the recipe, or the name of a shipped one."""
    accumulate: int | None = None
    precision: str | None = None
    ema: float | None = None
    eval_every: int | None = None
    weights: str | None = None
    """Weights of a backbone: a file, or imagenet."""
    init_from: str | None = None
    """File with the weights of a whole detector."""
    teacher: str | None = None
    """File with the weights of a detector whose predictions are learned, too."""
    teacher_preset: str | None = None
    """The design of a teacher of another program."""
    seed: int = 0
    workers: int = 1
    device: str = "auto"
    resume: bool = False
    champion: bool = False
    tracking_uri: str = "none"

    def __post_init__(self):
        if self.top is not None and self.top < 1:
            raise UserError(f"--top {self.top}: must be at least 1")
        if self.epochs is not None and self.epochs < 1:
            raise UserError(f"--epochs {self.epochs}: must be at least 1")
        if self.eval_every is not None and self.eval_every < 0:
            raise UserError(f"--eval-every {self.eval_every}: must be at least 0")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"--ema {self.ema}: must be at least 0 and below 1, such as 0.999")
        if self.size is not None and (self.size < 32 or self.size % 32):
            raise UserError(f"--size {self.size}: must be a multiple of 32, such as 416 or 640")
        if self.teacher_preset is not None and self.teacher is None:
            raise UserError("--teacher-preset: needs --teacher; add that, or leave it out")
        if self.top is not None and self.with_holdout:
            raise UserError(
                "--top: chooses by the AP on the hold-out, which must therefore be left out of "
                "training; afterwards, retrain the chosen trial with --with-holdout"
            )

    @classmethod
    def of(cls, args: Namespace) -> RetrainOptions:
        """From the parsed command line.

        Raises:
            UserError: a number is out of range, or flags contradict each other.
        """
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})
