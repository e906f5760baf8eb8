"""What a tracker shows of a study: its trials, its progress, its tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.statistics.pareto import front_of
from analysis.statistics.progress import progress_of
from nas.study.storage import Study
from trials.names import describe
from trials.record import Status, TrialRecord
from trials.tracking.tracker import ProgressPoint, Tracker, TrialView


class StudyView:
    """Keeps a tracker's view of a study up to date.

    Args:
        metric: the cost that the study's front counts.
    """

    def __init__(self, study: Study, tracker: Tracker, metric: str):
        self._study, self._tracker, self._metric = study, tracker, metric
        self._front = _front(study.records, self._metric)

    def update(self, record: TrialRecord) -> None:
        """Log the new state of a trial. If it is completed, also log the trials that it moves onto
        or off the front, and the progress of the study."""
        if record.status is not Status.COMPLETED:
            self._log_trials([record])
            return
        records, front_before = self._study.records, self._front
        self._front = _front(records, self._metric)
        changed = (front_before ^ self._front) | {record.number}
        self._log_trials([records[number] for number in sorted(changed)])
        self._tracker.log_progress(progress_points(records))

    def update_all(self) -> None:
        """Log all trials and the progress; a tracker skips what it has already."""
        records = self._study.records
        self._log_trials(records)
        self._tracker.log_progress(progress_points(records))

    def log_files(self, paths: Sequence[Path]) -> None:
        self._tracker.log_files(paths)

    def _log_trials(self, records: Sequence[TrialRecord]) -> None:
        self._tracker.log_trials(
            [
                TrialView(
                    record=record,
                    title=f"r{record.number:03d} {describe(record.detector)}",
                    params=record.params or {"source": record.source},
                    on_front=record.number in self._front,
                )
                for record in records
            ]
        )


def progress_points(records: Sequence[TrialRecord]) -> list[ProgressPoint]:
    """The study's own metrics after each completed trial."""
    progress = progress_of(records)
    return [
        ProgressPoint(
            step=int(step),
            time=float(ended),
            values={
                "best_score": float(best),
                "hypervolume": float(hypervolume),
                "front_size": int(front_size),
                "epochs_spent": int(epochs),
            },
        )
        for step, ended, best, hypervolume, front_size, epochs in zip(
            progress.trials,
            progress.ended,
            progress.best,
            progress.hypervolume,
            progress.front,
            progress.epochs,
        )
    ]


def _front(records: Sequence[TrialRecord], metric: str) -> set[int]:
    """Numbers of the trials on the Pareto front."""
    completed = [r for r in records if r.status is Status.COMPLETED]
    return {r.number for r in front_of(completed, metric)}
