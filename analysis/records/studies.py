"""A study as reports need it: its records, its retrained models and their evaluations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from analysis.records.load import load_records
from analysis.statistics.choice import Choice, choose_from
from analysis.statistics.correlation import Comparison, comparisons, score_deviation
from analysis.statistics.front import COSTS, FrontData, front_data
from analysis.statistics.importance import Importances, importances_of
from analysis.statistics.progress import Progress, progress_of
from analysis.statistics.sample import random_sample
from detector.base.errors import UserError, first_line
from detector.base.json_file import read_json
from trials.folders import find_study, read_manifest, study_or_newest
from trials.record import MIN_AP, Status, TrialRecord, learned, rank
from trials.stored import Manifest, Metrics, RoundsFile, read_metrics, read_rounds


@dataclass(frozen=True)
class Model:
    """A retrained model's folder: its results, and its network and evaluation if known."""

    folder: Path
    metrics: Metrics
    network: dict | None
    evaluation: dict | None

    @property
    def examples(self) -> Path | None:
        """A picture of faces detected in built-in scenes."""
        path = self.folder / "examples.png"
        return path if path.is_file() else None


@dataclass(frozen=True)
class StudyData:
    name: str
    folder: Path
    manifest: Manifest
    records: list[TrialRecord]
    retrained: dict[int, Model] = field(default_factory=dict)
    """By trial; the latest retrain of each."""
    best: Model | None = None
    """The model in the study's best/."""
    seed: int = 0
    """Of the resampling for intervals."""
    rounds: RoundsFile | None = None
    """The longer trainings that followed the proxies."""

    @property
    def completed(self) -> list[TrialRecord]:
        """Those that have learned something."""
        return [r for r in learned(self.records) if r.score is not None]

    @property
    def metric(self) -> str:
        """The cost that the study's score counts."""
        return self.manifest.objective.metric

    @property
    def proxy_epochs(self) -> int:
        """Of a trial that was trained for the whole budget."""
        return self.records[0].recipe.epochs

    @property
    def proxy_size(self) -> int:
        """Side of the training crops in px."""
        return self.records[0].recipe.size

    @property
    def retrained_accuracy(self) -> dict[int, float]:
        """Trial → accuracy score of its retrain on the hold-out, of retrains that are comparable:
        on the study's images and, if their budgets differ, the largest group of one budget."""
        groups: dict[tuple, dict[int, float]] = {}
        for number, model in self.retrained.items():
            metrics = model.metrics
            if metrics.accuracy_score is None:
                continue
            if metrics.origin.data_fingerprint != self.manifest.data_fingerprint:
                continue
            budget = (metrics.recipe.epochs, metrics.recipe.size, metrics.origin.teacher is None)
            groups.setdefault(budget, {})[number] = metrics.accuracy_score
        if not groups:
            return {}
        return groups[max(groups, key=lambda budget: (len(groups[budget]), budget))]

    @cached_property
    def front(self) -> FrontData:
        """The front by the cost that counts."""
        return front_data(self.records, self.metric)

    @property
    def baseline_score(self) -> float | None:
        return None if self.front.baseline is None else self.front.baseline.score

    @property
    def best_trial(self) -> TrialRecord:
        """The completed trial with the highest score."""
        return min(self.completed, key=rank)

    def learning_curves(
        self, best: int = 6, others: int = 60
    ) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Trials whose learning curves are shown: the best ones, and a random sample of others."""
        ranked = sorted(self.completed, key=rank)[:best]
        shown = {r.number for r in ranked}
        rest = [r for r in self.records if r.epochs and r.number not in shown]
        return ranked, random_sample(rest, others)

    @cached_property
    def progress(self) -> Progress:
        return progress_of(self.records)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        return comparisons(self.records, self.retrained_accuracy, self.seed)

    @property
    def score_deviation(self) -> tuple[float | None, str]:
        """As `analysis.statistics.correlation.score_deviation`."""
        return score_deviation(self.comparisons)

    @cached_property
    def choice(self) -> Choice:
        """The candidates among all completed trials."""
        return choose_from(self.completed, self.metric, self.score_deviation)

    @cached_property
    def importances(self) -> Importances | None:
        return importances_of(self.records, self.seed)


def load_study(runs_dir: Path, name: str | None, seed: int = 0) -> StudyData:
    """A study that has something to compare.

    Args:
        name: None means the newest study.
        seed: of the resampling for intervals.

    Raises:
        UserError: unknown, damaged, or without two trials of which one is completed.
    """
    name = study_or_newest(runs_dir, name)
    folder = find_study(runs_dir, name)
    manifest, records = read_manifest(folder), load_records(folder)
    _check(name, records)
    unscored = [r.number for r in records if r.status is Status.COMPLETED and r.score is None]
    if unscored:
        print(
            f"note: study {name}: the AP of {len(unscored)} completed trials (first: trial "
            f"{unscored[0]}) is missing or no number, so they are left out"
        )
    retrained: dict[int, Model] = {}
    best = read_model(folder / "best")
    models = [best, *(read_model(path.parent) for path in folder.glob("retrained/*/metrics.json"))]
    for model in sorted(filter(None, models), key=lambda model: model.metrics.finished):
        number = _trial_of(model, records)
        if number is not None:
            retrained[number] = model  # the latest one stays
    rounds = read_rounds(folder)
    return StudyData(name, folder, manifest, records, retrained, best, seed, rounds)


def _trial_of(model: Model, records: Sequence[TrialRecord]) -> int | None:
    """The trial that a model was trained from; of a preset, the first one of its design, if any."""
    if model.metrics.origin.trial is not None:
        return model.metrics.origin.trial
    return next((r.number for r in records if r.design == model.metrics.design), None)


def measured_metrics(studies: Sequence[StudyData]) -> list[str]:
    """Cost metrics that were measured in all studies; first the one that the score counts."""
    metrics = [
        metric
        for metric, (_, value) in COSTS.items()
        if all(any(value(r.cost) is not None for r in study.completed) for study in studies)
    ]
    return sorted(metrics, key=lambda metric: metric != studies[0].metric)


def same_score(studies: Sequence[StudyData]) -> bool:
    """Whether all rank their trials by the same score."""
    return all(study.manifest.objective == studies[0].manifest.objective for study in studies)


def read_model(folder: Path) -> Model | None:
    """What a retrain and an evaluation wrote; None where there is no model.

    Raises:
        UserError: a file cannot be read.
    """
    metrics = read_metrics(folder)
    if metrics is None:
        return None
    return Model(folder, metrics, _read(folder / "network.json"), _read(folder / "evaluation.json"))


def _read(path: Path) -> dict | None:
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); retrain and evaluate again, or "
            "remove the folder"
        ) from error


def _check(name: str, records: list[TrialRecord]) -> None:
    counts = Counter(record.status for record in records)
    statuses = ", ".join(f"{n} {status.value}" for status, n in sorted(counts.items()))
    resume = "resume the search (python -m nas.search … --resume)"
    if not records:
        raise UserError(f"study {name} has no trial yet; {resume}")
    if set(counts) == {Status.INFEASIBLE}:
        raise UserError(
            f"study {name}: all {len(records)} trials are infeasible, the last one "
            f"with {records[-1].reason}; loosen the constraints of its space, or let "
            "it vary smaller designs"
        )
    if counts[Status.COMPLETED] and not any(
        r.status is Status.COMPLETED and r.score is not None for r in records
    ):
        raise UserError(
            f"study {name}: the AP of all {counts[Status.COMPLETED]} completed trials is missing "
            "or no number, so there is nothing to compare; restore the study from a copy"
        )
    if not counts[Status.COMPLETED]:
        raise UserError(f"study {name} has no completed trial yet ({statuses}); {resume}")
    if not any(r.score is not None for r in learned(records)):
        raise UserError(
            f"study {name}: none of its trials has learned anything (AP of all levels below "
            f"{MIN_AP:g}, or a loss that grew), so there is nothing to compare; start a new study "
            "with more epochs or images"
        )
    if len(records) - counts[Status.INFEASIBLE] == 1:
        raise UserError(
            f"study {name} has only one trial, so there is nothing to compare; {resume}"
        )
