"""A study as reports need it: its records, and what retrains and evaluations left beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from analysis.correlation import Comparison, comparisons
from analysis.front import COSTS
from analysis.importance import Importances, importances_of
from analysis.load import load_records
from analysis.progress import Progress, progress_of
from detector.base.errors import UserError
from trials.folders import find_study, first_line, newest, read_manifest
from trials.record import Status, TrialRecord

MODEL_FILES = ("metrics", "network", "evaluation")


@dataclass(frozen=True)
class Model:
    """A retrained model's folder: what is there of MODEL_FILES, and example pictures."""

    folder: Path
    metrics: dict
    network: dict | None
    evaluation: dict | None

    @property
    def examples(self) -> Path | None:
        """Faces drawn on built-in scenes."""
        path = self.folder / "examples.png"
        return path if path.is_file() else None


@dataclass(frozen=True)
class StudyData:
    name: str
    folder: Path
    manifest: dict
    records: list[TrialRecord]
    retrained: dict[int, Model] = field(default_factory=dict)
    """By trial; the latest retrain of each."""
    best: Model | None = None
    """The model in the study's best/."""

    @property
    def completed(self) -> list[TrialRecord]:
        return [r for r in self.records if r.status is Status.COMPLETED and r.score is not None]

    @property
    def metric(self) -> str:
        """The cost that the study's score counts."""
        return self.manifest["objective"]["metric"]

    # Computed once: the page and the pictures show the same.

    @cached_property
    def progress(self) -> Progress:
        return progress_of(self.records)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        return comparisons(
            self.records,
            {
                number: model.metrics["accuracy_score"]
                for number, model in self.retrained.items()
                if model.metrics.get("accuracy_score") is not None
            },
        )

    @cached_property
    def importances(self) -> Importances | None:
        return importances_of(self.records)


def load_study(runs_dir: Path, name: str | None) -> StudyData:
    """A study that has something to compare.

    Args:
        name: none: the study made last.

    Raises:
        UserError: unknown, damaged, or without two trials of which one is completed.
    """
    name = name or newest(runs_dir)
    if name is None:
        raise UserError(
            f"{runs_dir}: no study there yet; run python -m nas.search --space "
            "search_spaces/quick.yaml first"
        )
    folder = find_study(runs_dir, name)
    manifest, records = read_manifest(folder), load_records(folder)
    for key in ("objective", "data"):
        if key not in manifest:
            raise UserError(f"{folder / 'study.json'}: has no {key}; restore it from a copy")
    _check(name, records)
    numbers = {record.design: record.number for record in records}
    retrained: dict[int, Model] = {}
    best = read_model(folder / "best")
    for model in [read_model(path.parent) for path in folder.glob("retrained/*/metrics.json")] + (
        [best] if best else []
    ):
        number = numbers.get(model.metrics.get("design"))
        if number is not None and (
            number not in retrained or _finished(model) > _finished(retrained[number])
        ):
            retrained[number] = model
    return StudyData(name, folder, manifest, records, retrained, best)


def measured(studies: Sequence[StudyData]) -> list[str]:
    """The kinds of cost that completed trials of all studies have, the one that counts first."""
    kinds = [
        kind
        for kind, (_, value) in COSTS.items()
        if all(any(value(r.cost) is not None for r in study.completed) for study in studies)
    ]
    return sorted(kinds, key=lambda kind: kind != studies[0].metric)


def read_model(folder: Path) -> Model | None:
    """What a retrain and an evaluation wrote; none where there is no model.

    Raises:
        UserError: a file cannot be read.
    """
    found: dict[str, dict | None] = {}
    for name in MODEL_FILES:
        path = folder / f"{name}.json"
        try:
            found[name] = json.loads(path.read_text())
        except FileNotFoundError:
            found[name] = None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({first_line(error)}); retrain and evaluate "
                "again, or remove the folder"
            ) from error
    return Model(folder, **found) if found["metrics"] is not None else None


def _finished(model: Model) -> float:
    return model.metrics.get("finished", 0.0)


def _check(name: str, records: list[TrialRecord]) -> None:
    counts = Counter(record.status for record in records)
    told = ", ".join(f"{n} {status.value}" for status, n in sorted(counts.items()))
    go_on = "go on with the search (python -m nas.search … --resume)"
    if not records:
        raise UserError(f"study {name} has no trial yet; {go_on}")
    if set(counts) == {Status.INFEASIBLE}:
        raise UserError(
            f"study {name}: all {len(records)} trials are infeasible, the last one "
            f"with {records[-1].reason}; loosen the constraints of its space, or let "
            "it vary smaller designs"
        )
    if not any(r.status is Status.COMPLETED and r.score is not None for r in records):
        raise UserError(f"study {name} has no completed trial yet ({told}); {go_on}")
    if len(records) - counts[Status.INFEASIBLE] == 1:
        raise UserError(f"study {name} has one trial only, so there is nothing to compare; {go_on}")
