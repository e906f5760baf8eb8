"""The vocabulary of a search: Status, Cost, EpochResult, TrialRecord. Plain data.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

import hashlib
import json
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache

from detector.architecture.cost import cost
from detector.base.struct import Struct
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.metrics.levels import LEVELS as LEVELS  # for analysis, too
from trials.expression import read_expression
from trials.growth import Growth

MIN_AP = 0.01
"""A trial that reaches this AP in none of the levels has learned nothing."""
MAX_LOSS_GROWTH = 10.0
"""A trial whose mean loss grew by more than this factor since its first epoch has diverged."""

RECORD_ATTRIBUTE = "record"
"""System attribute of Optuna's trials that holds records as JSON, see `records_from_json`."""


class Status(StrEnum):
    """The state of a trial; comments say what it leaves on disk besides its log."""

    RUNNING = "running"  # being trained, or waiting to resume; checkpoint of its last epoch
    PAUSED = "paused"  # at a rung, may be promoted; checkpoint
    COMPLETED = "completed"  # trained with the full budget; checkpoint of the best and of the front
    PRUNED = "pruned"  # still paused when the search ended (checkpoint, for a longer search), or
    # trained with the full budget without learning anything (nothing)
    INFEASIBLE = "infeasible"  # violates a cap and is never trained; nothing, not even a log
    FAILED = "failed"  # reason and traceback are in the record; nothing

    @property
    def ended(self) -> bool:
        return self not in (Status.RUNNING, Status.PAUSED)


def finds_nothing(ap: Mapping[str, float]) -> str | None:
    """A note about a model whose APs are all below `MIN_AP`; None for others."""
    if max(ap.values()) >= MIN_AP:
        return None
    return f"AP of all levels is below {MIN_AP:g}: this model finds next to nothing"


def mean_ap(ap: Mapping[str, float]) -> float:
    """The accuracy score: mean of easy, medium and hard AP, in [0, 1]."""
    return sum(ap.values()) / len(ap)


ACCURACY_WEIGHT = 2
"""Of accuracy in the built-in score; speed has 1."""


def combined_score(accuracy_score, speed_score):
    """The competition's score, in [0, 3], of numbers or of arrays."""
    return speed_score + ACCURACY_WEIGHT * accuracy_score


@dataclass(frozen=True, kw_only=True)
class Cost(Struct):
    params: int
    """Number of parameters."""
    macs: int
    """Multiply-accumulates at 640×640 for one image, in thop's convention."""
    latency_ms: float | None = None
    """Median forward time of one 640×640 image; None if not measured."""
    machine: str | None = None
    """Where the latency was measured."""

    @property
    def numbers(self) -> dict[str, float]:
        """macs, params and latency_ms; NaN for a latency that was not measured."""
        latency_ms = math.nan if self.latency_ms is None else self.latency_ms
        return {"macs": self.macs, "params": self.params, "latency_ms": latency_ms}

    @classmethod
    def of(cls, detector: Detector) -> Cost:
        """Exact parameters and MACs, from the configuration alone; no latency."""
        params, macs = cost(detector)
        return cls(params=params, macs=macs)


def accuracies(accuracy) -> dict[str, typing.Any]:
    """easy, medium, hard and accuracy, their mean.

    Args:
        accuracy: AP by level; or their mean alone, a number or an array, which then counts for each
            level.
    """
    if isinstance(accuracy, Mapping):
        return {**accuracy, "accuracy": mean_ap(accuracy)}
    return dict.fromkeys((*LEVELS, "accuracy"), accuracy)


def expression_score(text: str, accuracy, costs: Mapping[str, typing.Any]):
    """The score by an expression (`trials.expression`), of numbers or of arrays.

    Args:
        accuracy: as `accuracies` gives it.
        costs: macs, params and latency_ms; NaN where unknown.
    """
    return read_expression(text).score({**accuracy, **costs})


@dataclass(frozen=True, kw_only=True)
class EpochResult(Struct):
    """One epoch of one trial, as training reports it."""

    epoch: int
    """1 after the first epoch."""
    losses: dict
    """Mean of each loss term and of `total` over the epoch."""
    lr: float
    """Learning rate of the epoch's last step."""
    seconds: float
    """Duration of the epoch, evaluation included."""
    ap: dict | None = None
    """easy, medium and hard AP in [0, 1]; None if the epoch was not evaluated."""
    ended: float | None = None
    """Unix seconds, by the clock of the search; None in studies of older versions."""

    @cached_property
    def accuracy_score(self) -> float | None:
        """Mean of easy, medium and hard AP; None if not evaluated."""
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
    """The sampler's choices: active dimensions of the space → values; empty for the baseline and
    for designs that do not come from the space."""
    cost: Cost
    speed_score: float
    formula: str | None = None
    """The expression of the study's objective; None means speed_score + 2 × accuracy_score."""
    growth: Growth | None = None
    """Of the study's objective: the score is the one expected of a full training."""
    epochs: tuple[EpochResult, ...] = ()
    rung: int = -1
    """Index of the last rung reached; -1 before the first."""
    reason: str | None = None
    """Why the trial is infeasible, failed or pruned, in one line; of a completed baseline, why it
    has learned nothing."""
    traceback: str | None = None
    source: str = "sampled"
    """baseline, sampled, enqueued (`notes["origin"]` says from where), or the trial whose result
    was reused, such as "study retina-001 trial 7"."""
    parent: int | None = None
    """Number of the trial whose weights it started from; None means from scratch, or from the
    recipe's weights."""
    retries: int = 0
    started: float | None = None
    """Unix seconds."""
    ended: float | None = None
    notes: dict = field(default_factory=dict)
    """device, threads, thop's count, the start of its weights, …"""

    @cached_property
    def last_evaluation(self) -> EpochResult | None:
        """The last epoch that was evaluated; None before the first evaluation."""
        return next((e for e in reversed(self.epochs) if e.ap is not None), None)

    @property
    def ap(self) -> dict | None:
        """AP of the last evaluated epoch."""
        return self.last_evaluation.ap if self.last_evaluation else None

    @property
    def accuracy_score(self) -> float | None:
        """Mean of easy, medium and hard AP of the last evaluated epoch."""
        return self.last_evaluation.accuracy_score if self.last_evaluation else None

    @property
    def score(self) -> float | None:
        """Of the last evaluated epoch."""
        last = self.last_evaluation
        return None if last is None or last.accuracy_score is None else self._score_of(last)

    def scores(self, since: int = 0) -> dict[int, float]:
        """Score of each evaluated epoch (1-based), without the first `since` epochs."""
        return {e.epoch: self._score_of(e) for e in self.epochs[since:] if e.ap is not None}

    @property
    def expected_accuracy(self) -> float | None:
        """The accuracy score that counts: of the last evaluated epoch, grown to what is expected of
        a full training if the objective has a growth."""
        if self.accuracy_score is None or self.growth is None:
            return self.accuracy_score
        return float(self.growth.expected(self.accuracy_score, self.cost.macs))

    @property
    def without_growth(self) -> TrialRecord:
        """The record, scored as what was trained in full is."""
        return self if self.growth is None else self.evolve(growth=None)

    def score_at(self, accuracy: Mapping[str, float] | float) -> float:
        """The score of this design with another accuracy.

        Args:
            accuracy: AP by level; or the accuracy score alone, such as a predicted one, which then
                counts for each level.
        """
        values = accuracies(accuracy)
        if self.growth is not None:
            macs = self.cost.macs
            values = {k: float(self.growth.expected(v, macs)) for k, v in values.items()}
        if self.formula is None:
            return combined_score(values["accuracy"], self.speed_score)
        return float(expression_score(self.formula, values, self.cost.numbers))

    def score_slope(self, accuracy: float) -> float:
        """By how much the score rises with the accuracy score, around this one: 2 with the built-in
        score."""
        if self.formula is None and self.growth is None:
            return ACCURACY_WEIGHT
        low, high = max(min(accuracy, 1.0) - 0.05, 0.0), min(max(accuracy, 0.0) + 0.05, 1.0)
        return (self.score_at(high) - self.score_at(low)) / (high - low)

    def _score_of(self, epoch: EpochResult) -> float:
        if self.formula is None and self.growth is None:
            return combined_score(epoch.accuracy_score, self.speed_score)
        return self._scores_by_epoch[epoch.epoch]

    @cached_property
    def _scores_by_epoch(self) -> dict[int, float]:
        return {e.epoch: self.score_at(e.ap) for e in self.epochs if e.ap is not None}

    def to_dict(self) -> dict:
        """As `Struct.to_dict`; without `formula` and `growth` where there are none, as in older
        studies."""
        plain = super().to_dict()
        for key in ("formula", "growth"):
            if plain[key] is None:
                del plain[key]
        return plain

    def __repr__(self) -> str:
        """In one line, for notebooks; `to_dict` has all of it."""
        from trials.names import describe

        parts = [f"trial {self.number}: {self.status.value}"]
        if self.score is not None:
            parts.append(f"score {self.score:.3f}")
        if self.ap is not None:
            parts.append("AP " + " / ".join(f"{self.ap[level]:.3f}" for level in LEVELS))
        parts.append(f"{self.cost.macs / 1e9:.3f} G MACs")
        return f"<{', '.join(parts)}, {describe(self.detector)}>"

    def why_nothing_learned(self, until: int | None = None) -> str | None:
        """Why the trial has learned nothing by its last evaluation, in one line: its APs are all
        below `MIN_AP`, or its loss grew by more than `MAX_LOSS_GROWTH`. None if it has learned
        something, or was not evaluated.

        Args:
            until: only epochs up to this one (1-based) count; None means all.
        """
        epochs = self.epochs[:until]
        last = next((e for e in reversed(epochs) if e.ap is not None), None)
        if last is None or last.ap is None:
            return None
        if max(last.ap.values()) < MIN_AP:
            return f"AP of all levels below {MIN_AP:g} at epoch {last.epoch}"
        before, now = (e.losses.get("total", 0.0) for e in (epochs[0], last))
        if now > MAX_LOSS_GROWTH * before > 0:
            return f"its mean loss grew from {before:.4g} to {now:.4g} at epoch {last.epoch}"
        return None

    def trained_in_full(self, ended: float | None) -> TrialRecord:
        """The record at the end of the full budget: completed, or pruned if the trial has learned
        nothing. The baseline, which all are compared with, is completed in any case.

        Args:
            ended: Unix seconds.
        """
        cause = self.why_nothing_learned()
        return self.evolve(
            status=Status.PRUNED if cause and self.number else Status.COMPLETED,
            reason=cause and f"learned nothing: {cause}",
            ended=ended,
        )

    @property
    def reused(self) -> bool:
        """Whether the result comes from another study, so that nothing was trained in this one."""
        return self.source.startswith("study ")

    @property
    def training_ended(self) -> float | None:
        """Unix seconds; None if the trial has not ended. A pruned trial was trained until its last
        epoch, while its `ended` is when the search decided, which may be hours later."""
        if self.status is Status.PRUNED and self.epochs and not self.reused:
            return self.epochs[-1].ended or self.ended
        return self.ended

    @property
    def epochs_spent(self) -> int:
        """Epochs trained in this study."""
        return 0 if self.reused else len(self.epochs)

    @property
    def seconds(self) -> float:
        """Time for training and evaluation in this study."""
        return 0.0 if self.reused else sum(e.seconds for e in self.epochs)

    @cached_property
    def identity(self) -> str:
        """The same for trials with the same design and recipe (budget and seed included)."""
        return identity_of(self.design, self.recipe)

    def evolve(self, **changes) -> TrialRecord:
        """The record with some fields changed."""
        return replace(self, **changes)


def rank(record: TrialRecord) -> tuple[float, int]:
    """Sort key of completed trials: best score first, ties by number."""
    assert record.score is not None, f"trial {record.number} has no score"
    return -record.score, record.number


def best_of(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The completed trial with the best score among those that have learned something; None if
    there is none."""
    return min(learned(records), key=rank, default=None)


def learned(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The completed trials that have learned something; if none has, those of an older study, which
    did not look at that (a newer one gives a reason)."""
    completed = [r for r in records if r.status is Status.COMPLETED and r.reason is None]
    return [r for r in completed if r.why_nothing_learned() is None] or completed


def records_to_json(records: TrialRecord | Sequence[TrialRecord]) -> str:
    """The value of RECORD_ATTRIBUTE; `records_from_json` reads it."""
    plain = (
        records.to_dict()
        if isinstance(records, TrialRecord)
        else [record.to_dict() for record in records]
    )
    return json.dumps(plain, separators=(",", ":"))


def records_from_json(text: str) -> list[TrialRecord]:
    """The records in a trial of the storage: a single one; of older studies also a batch of
    infeasible ones."""
    plain = json.loads(text)
    entries = plain if isinstance(plain, list) else [plain]
    return [TrialRecord.from_dict(_with_parts(entry)) for entry in entries]


def _with_parts(entry: dict) -> dict:
    """The entry with its recipe and the parts of its detector as objects, read once for all records
    that have the same: a study of 10,000 trials has few."""
    detector = {
        name: _part(f"detector.{name}", json.dumps(part)) if name in _DETECTOR else part
        for name, part in entry.get("detector", {}).items()
    }
    recipe = _part("recipe", json.dumps(entry.get("recipe")))
    return {**entry, "detector": detector, "recipe": recipe}


_DETECTOR = typing.get_type_hints(Detector)


@lru_cache(maxsize=10_000)
def _part(where: str, text: str) -> Struct:
    kind = Recipe if where == "recipe" else _DETECTOR[where.removeprefix("detector.")]
    return kind.from_dict(json.loads(text), where)


def identity_of(design: str, recipe: Recipe) -> str:
    """Identity of a trial, 12 hex digits, from its design's `arch_hash` and its recipe."""
    text = json.dumps([design, recipe.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
