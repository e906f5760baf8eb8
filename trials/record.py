"""The vocabulary of a search: Status, EpochResult, TrialRecord. Plain data, light to import."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from detector.architecture.cost import cost
from detector.base.struct import Struct
from detector.config.detector import Detector
from detector.config.recipe import Recipe

RECORD_ATTRIBUTE = "record"
"""User attribute of the storage's trial that holds records as JSON text, see `records_in`."""


class Status(StrEnum):
    """What became of a trial, and what stays on disk beside its log."""

    RUNNING = "running"  # a worker has it; checkpoint of its last epoch
    PAUSED = "paused"  # waits at a rung, may be promoted; checkpoint
    COMPLETED = "completed"  # full budget; checkpoint of the best and of the front
    PRUNED = "pruned"  # paused when the search ended; checkpoint, for a longer search
    INFEASIBLE = "infeasible"  # over a cap: never trained; nothing
    FAILED = "failed"  # reason and traceback in the record; nothing

    @property
    def ended(self) -> bool:
        return self not in (Status.RUNNING, Status.PAUSED)


def mean_ap(ap: Mapping[str, float]) -> float:
    """The accuracy score: mean of easy, medium and hard AP, in [0, 1]."""
    return sum(ap.values()) / len(ap)


def combined_score(accuracy_score, speed_score):
    """The competition's score, in [0, 3]: of numbers, or of arrays."""
    return speed_score + 2 * accuracy_score


@dataclass(frozen=True, kw_only=True)
class Cost(Struct):
    params: int
    """Parameters that get built."""
    macs: int
    """Multiply-accumulates at 640×640 for one image, in thop's convention."""
    latency_ms: float | None = None
    """Median forward time of one 640×640 image; none where not measured."""
    machine: str | None = None
    """Where the latency was measured."""

    @classmethod
    def of(cls, detector: Detector) -> Cost:
        """Exact, from the configuration alone."""
        params, macs = cost(detector)
        return cls(params=params, macs=macs)


@dataclass(frozen=True, kw_only=True)
class EpochResult(Struct):
    """One epoch of one trial, as training tells it."""

    epoch: int
    """1 after the first epoch."""
    losses: dict
    """Mean of each loss term and of `total` over the epoch."""
    lr: float
    """Learning rate of the epoch's last step."""
    seconds: float
    """Training and evaluation of the epoch."""
    ap: dict | None = None
    """easy, medium, hard AP in [0, 1], where the epoch was evaluated."""
    ended: float | None = None
    """Unix seconds, by the search's clock; none in a study of an older version."""

    @property
    def accuracy_score(self) -> float | None:
        """Mean of easy, medium and hard AP; none where not evaluated."""
        return None if self.ap is None else mean_ap(self.ap)


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Struct):
    number: int
    """0 is the baseline."""
    status: Status
    design: str
    """`arch_hash` of the detector."""
    detector: Detector
    recipe: Recipe
    params: dict
    """What the sampler chose: active names of the space → values; empty for given designs."""
    cost: Cost
    speed_score: float
    epochs: tuple[EpochResult, ...] = ()
    rung: int = -1
    """Index of the last rung reached; -1 before the first."""
    reason: str | None = None
    """Why it is infeasible, failed or pruned, in one line."""
    traceback: str | None = None
    source: str = "sampled"
    """baseline, sampled, enqueued (`notes` tell from where), or such as "study retina-001 trial 7"
    where the result was taken over from there."""
    parent: int | None = None
    """Number of the trial whose weights it started from; none: from scratch, or as the recipe
    says."""
    retries: int = 0
    started: float | None = None
    """Unix seconds."""
    ended: float | None = None
    notes: dict = field(default_factory=dict)
    """Machine, device, thop's own count, …"""

    @property
    def evaluated(self) -> EpochResult | None:
        """The last epoch that was evaluated."""
        return next((e for e in reversed(self.epochs) if e.ap is not None), None)

    @property
    def ap(self) -> dict | None:
        """AP of the last evaluated epoch."""
        return self.evaluated.ap if self.evaluated else None

    @property
    def accuracy_score(self) -> float | None:
        """Mean of easy, medium and hard AP of the last evaluated epoch."""
        return self.evaluated.accuracy_score if self.evaluated else None

    @property
    def score(self) -> float | None:
        """speed_score + 2 × accuracy_score at the budget reached so far."""
        accuracy = self.accuracy_score
        return None if accuracy is None else combined_score(accuracy, self.speed_score)

    def scores(self, since: int = 0) -> dict[int, float]:
        """Score by epoch (1-based) of those evaluated, without the first `since` epochs."""
        return {
            e.epoch: combined_score(e.accuracy_score, self.speed_score)
            for e in self.epochs[since:]
            if e.ap is not None
        }

    @property
    def taken_over(self) -> bool:
        """Its result is another study's: nothing was trained for it in this one."""
        return self.source.startswith("study ")

    @property
    def epochs_spent(self) -> int:
        """Epochs trained in this study."""
        return 0 if self.taken_over else len(self.epochs)

    @property
    def seconds(self) -> float:
        """Of training and evaluation in this study."""
        return 0.0 if self.taken_over else sum(e.seconds for e in self.epochs)

    @cached_property
    def identity(self) -> str:
        """Same design, same recipe (budget and seed included): the same trial."""
        return identity_of(self.design, self.recipe)

    def evolve(self, **changes) -> TrialRecord:
        """The record with some fields changed."""
        return replace(self, **changes)


def rank(record: TrialRecord) -> tuple[float, int]:
    """Sort key of completed trials: best score first, of equal ones the first trial."""
    assert record.score is not None, f"trial {record.number} has no score"
    return -record.score, record.number


def best_of(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The completed trial with the best score; None without one."""
    completed = [record for record in records if record.status is Status.COMPLETED]
    return min(completed, key=rank, default=None)


def text_of(records: TrialRecord | Sequence[TrialRecord]) -> str:
    """What the storage's trial keeps under RECORD_ATTRIBUTE; `records_in` reads it."""
    plain = (
        records.to_dict()
        if isinstance(records, TrialRecord)
        else [record.to_dict() for record in records]
    )
    return json.dumps(plain, separators=(",", ":"))


def records_in(text: str) -> list[TrialRecord]:
    """The records that a trial of the storage holds: one, or a batch of infeasible ones."""
    plain = json.loads(text)
    return [TrialRecord.from_dict(one) for one in (plain if isinstance(plain, list) else [plain])]


def identity_of(design: str, recipe: Recipe) -> str:
    """Identity of a trial, 12 hex digits, from a design's `arch_hash` and its recipe."""
    text = json.dumps([design, recipe.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
