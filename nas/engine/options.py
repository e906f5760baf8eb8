"""The flags of a search, checked."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from detector.base.errors import UserError
from detector.config.recipe import DataChoice

MAX_ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The flags of a search; None means the default, or the value that a resumed study has."""

    space: str
    """As typed by the user, for the command that resumes the search."""
    budget: str | None = None
    study: str | None = None
    runs_dir: Path = Path("runs")
    resume: bool = False
    trials: int | None = None
    seed: int = 0
    sampler: str | None = None
    scheduler: str | None = None
    """halving or none."""
    proxies: str = "auto"
    """short, long, or auto: long where trials train on GPUs and the space has such proxies."""
    prior: bool = True
    """Whether a new study learns from earlier ones."""
    inherit: bool = False
    max_failures: float | None = None
    """Share of failed trials in [0, 1] above which the search stops."""
    enqueue: Path | None = None
    from_study: str | None = None
    data: str | None = None
    """Folder of the images, or "synthetic"."""
    data_choice: DataChoice = field(default_factory=DataChoice)
    """Fractions and seed of the split; its path is not set, see `data`."""
    address: str | None = None
    """Of a Ray cluster."""
    device: str = "auto"
    """auto, cpu or cuda."""
    concurrency: int | None = None
    """Trials trained at the same time."""
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    tracking_uri: str = "none"
    rounds: int = 1
    """1: proxies alone; more: longer and longer trainings of the most promising designs follow."""
    full_recipe: str | None = None
    """File with changes to the recipe of those trainings, or the name of a shipped one."""
    flags: Mapping[str, object] = field(default_factory=dict)
    """Those that were given on the command line, for the one that resumes the search."""

    def __post_init__(self):
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise UserError(f"--rounds {self.rounds}: must be from 1 to {MAX_ROUNDS}")
        if self.full_recipe is not None and self.rounds == 1:
            raise UserError("--full-recipe: needs --rounds 2 or more; add that, or leave it out")
        if self.trials is not None and self.trials < 1:
            raise UserError(f"--trials {self.trials}: must be at least 1")
        from nas.samplers.proposer import SAMPLERS

        for flag, value, known in (
            ("sampler", self.sampler, SAMPLERS),
            ("scheduler", self.scheduler, ("halving", "none")),
            ("proxies", self.proxies, ("auto", "short", "long")),
            ("device", self.device, ("auto", "cpu", "cuda")),
        ):
            if value is not None and value not in known:
                raise UserError(f"--{flag} {value}: is not one of {', '.join(known)}")
        if self.max_failures is not None and not 0 <= self.max_failures <= 1:
            raise UserError(f"--max-failures {self.max_failures:g}: must be between 0 and 1")

    @classmethod
    def of(cls, args: Namespace, flags: Mapping[str, object] | None = None) -> SearchOptions:
        """From the parsed command line.

        Args:
            flags: see the field.

        Raises:
            UserError: a number is out of range.
        """
        others: dict[str, Any] = {
            "space": str(args.space),
            "prior": not args.no_prior,
            "data_choice": DataChoice(
                fraction=args.fraction,
                holdout=args.holdout,
                select_on=args.select_on,
                seed=args.seed,
            ),
            "flags": flags or {},
        }
        names = {option.name for option in fields(cls)} - set(others)
        return cls(**others, **{name: getattr(args, name) for name in names})
