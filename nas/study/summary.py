"""The results of a search: tables and pictures in its folder, and the summary it prints."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.trial_table import ap_columns, cost_columns, print_table
from analysis.statistics.pareto import front_of
from detector.base.output import print_wrapped
from nas.study.storage import Study
from nas.study.tracker_view import StudyView
from trials.folders import SPACE
from trials.hints import command, retrain_command, top_command, ui_command
from trials.names import LEGEND, describe
from trials.record import Status, TrialRecord, best_of, rank

if TYPE_CHECKING:
    from analysis.records.studies import StudyData

FRONT_PICTURE = "front.png"
REPORT = "report.html"


def search_result(study: Study) -> dict:
    """The result of a search as plain data, for --json."""
    records = study.records
    counts = Counter(r.status for r in records)
    completed = [r for r in records if r.status is Status.COMPLETED]
    best = best_of(records)
    baseline = next((r for r in completed if r.number == 0), None)
    return {
        "study": study.name,
        "trials": {s.value: counts[s] for s in Status},
        "best": best and trial_facts(best),
        "baseline": baseline and trial_facts(baseline),
        "front": [trial_facts(r) for r in front_of(completed, study.manifest.objective.metric)],
        "epochs": sum(r.epochs_spent for r in records),
    }


def trial_facts(record: TrialRecord) -> dict:
    """A completed trial as plain data, for --json."""
    return {
        "number": record.number,
        "score": record.score,
        "accuracy_score": record.accuracy_score,
        "speed_score": record.speed_score,
        "params": record.cost.params,
        "macs": record.cost.macs,
        "latency_ms": record.cost.latency_ms,
        "ap": record.ap,
        "design": record.design,
        "describe": describe(record.detector),
    }


def write_files(study: Study) -> list[Path]:
    """Write front.csv, trials.csv, a picture of the front and, if there is more than one feasible
    trial, report.html.

    Args:
        study: with at least one completed trial.

    Returns:
        The paths of these files and of space.yaml.
    """
    return _write_files(study, _compared(study))


def _write_files(study: Study, compared: StudyData | None) -> list[Path]:
    from analysis.figures.png.front import front_png
    from analysis.records.tables import trials_csv
    from analysis.report import write_page

    records, folder = study.records, study.folder
    metric = study.manifest.objective.metric
    front = front_of([r for r in records if r.status is Status.COMPLETED], metric)
    files = [
        folder / SPACE,
        trials_csv(front, folder / "front.csv"),
        trials_csv(records, folder / "trials.csv"),
        front_png(records, folder / FRONT_PICTURE, title=study.name, metric=metric),
    ]
    if compared is not None:
        files.append(write_page([compared]))
    return files


def _compared(study: Study) -> StudyData | None:
    """The study as a report reads it; None if it has nothing to compare."""
    from analysis.records.studies import load_study

    if sum(r.status is not Status.INFEASIBLE for r in study.records) < 2:
        return None
    return load_study(study.folder.parent, study.name)


def refresh_report(folder: Path) -> None:
    """Rewrite the report of a study, if it has one, after a model was retrained or evaluated."""
    from analysis.records.studies import load_study
    from analysis.report import write_page

    if (folder / REPORT).exists() and os.access(folder, os.W_OK):
        print(f"report: {write_page([load_study(folder.parent, folder.name)])}")


def summarise(study: Study, view: StudyView, flags: Mapping[str, object]) -> dict:
    """Write the study's files, log them to the view, and print the front and the next commands.

    Args:
        flags: of the next commands, see `trials.hints.command`.

    Returns:
        `search_result`.
    """
    records, folder = study.records, study.folder
    completed = [r for r in records if r.status is Status.COMPLETED]
    front = front_of(completed, study.manifest.objective.metric)
    compared = _compared(study)
    view.log_files(_write_files(study, compared))
    result = search_result(study)
    machine = next((r.cost.machine for r in completed), None)
    print_trials(
        front,
        f"{study.name}: the Pareto front of {len(completed)} completed trials "
        "(no other one is better in both accuracy and speed; AP on the "
        f"{study.manifest.data.select_on} at the proxy's size"
        + (f"; ms of one 640×640 image on {machine}" if machine else "")
        + ")",
    )
    print_wrapped(LEGEND)
    print_wrapped(
        ", ".join(f"{value} {key}" for key, value in result["trials"].items() if value)
        + f"; {result['epochs']} epochs trained"
    )
    print_wrapped(_best_line(result["best"], result["baseline"]))
    if note := study.manifest.objective.growth_note:
        print_wrapped(note)
    for note in learning_notes(records):
        print_wrapped(f"note: {note}")
    warning = spread_warning(completed)
    if warning:
        print_wrapped(f"note: {warning}")
    report = folder / REPORT
    print(f"\nreport: {report if report.exists() else folder / FRONT_PICTURE}\nnext:")
    data, tied = study.manifest.data.path, 0 if compared is None else compared.choice.tied
    for line in (
        retrain_command(data, {"best": True, **flags}),
        top_command(data, tied, flags) if tied > 1 else None,
        command("nas.evaluate", flags),
        ui_command(str(flags["tracking_uri"])),
    ):
        if line is not None:
            print(f"  {line}")
    return result


def learning_notes(records: Sequence[TrialRecord]) -> list[str]:
    """What to tell about trials that have learned nothing."""
    sampled = [r for r in records if r.number and r.epochs]
    useless = [r for r in sampled if r.why_nothing_learned()]
    notes = []
    if useless:
        notes.append(
            f"{len(useless)} of {len(sampled)} trained designs have learned nothing, such as trial "
            f"{useless[0].number}: {useless[0].why_nothing_learned()}"
        )
    if cause := next((r.why_nothing_learned() for r in records if not r.number), None):
        notes.append(f"the baseline has learned nothing: {cause}")
    return notes


def spread_warning(completed: list[TrialRecord]) -> str | None:
    """A warning if the score varies less by accuracy than by cost; else None."""
    sampled = [r for r in completed if r.number and r.accuracy_score is not None]
    if len(sampled) < 3:
        return None
    accuracies = sorted(r.accuracy_score or 0.0 for r in sampled)
    middle = accuracies[len(accuracies) // 2]
    by_accuracy = [min(sampled, key=rank).score_at(accuracy) for accuracy in accuracies]
    by_cost = [record.score_at(middle) for record in sampled]
    accuracy, cost = max(by_accuracy) - min(by_accuracy), max(by_cost) - min(by_cost)
    if accuracy >= cost:
        return None
    return (
        f"among the completed trials the score varies by {accuracy:.3f} through accuracy, by "
        f"{cost:.3f} through cost: cost decides the ranking; give the proxies more epochs or more "
        "images"
    )


def _best_line(best: Mapping, baseline: Mapping | None) -> str:
    text = f"best score {best['score']:.3f}: trial {best['number']} ({best['describe']})"
    if best["number"] == 0:
        return f"{text}, which is the baseline: no design of this search is better"
    return text + (f"; the baseline has {baseline['score']:.3f}" if baseline else "")


def print_trials(records: Sequence[TrialRecord], title: str) -> None:
    """Print a table of completed trials, best score first."""
    ranked = sorted(records, key=rank)
    print_table(
        title,
        names=[f"r{record.number:03d}" for record in ranked],
        designs=[
            describe(record.detector) + (" (baseline)" if record.number == 0 else "")
            for record in ranked
        ],
        columns={
            "score": [f"{record.score:.3f}" for record in ranked],
            "accuracy": [f"{record.accuracy_score:.3f}" for record in ranked],
            **ap_columns(ranked),
            "speed": [f"{record.speed_score:.3f}" for record in ranked],
            **cost_columns(ranked),
        },
    )
