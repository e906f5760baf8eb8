"""What a tracker is told of a study: its trials, its course, its tables and pictures."""

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
    """Keeps a tracker's view of a study up to date."""

    def __init__(self, study: Study, tracker: Tracker):
        self._study, self._tracker = study, tracker
        self._front = _front(study.records)

    def tell(self, record: TrialRecord) -> None:
        """A trial's new state, as it stands in the study; of a completed one also what it changes
        for others and for the study."""
        if record.status is not Status.COMPLETED:
            self._trials([record])
            return
        records, before = self._study.records, self._front
        self._front = _front(records)
        self._trials([records[n] for n in sorted((before ^ self._front) | {record.number})])
        self._tracker.log_progress(course(records))

    def tell_all(self) -> None:
        """All of the study: what a tracker has already is nothing new to it."""
        records = self._study.records
        self._trials(records)
        self._tracker.log_progress(course(records))

    def files(self, paths: Sequence[Path]) -> None:
        self._tracker.log_files(paths)

    def _trials(self, records: Sequence[TrialRecord]) -> None:
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


def course(records: Sequence[TrialRecord]) -> list[ProgressPoint]:
    """The study's numbers after each completed trial."""
    found = progress_of(records)
    return [
        ProgressPoint(
            step=int(step),
            time=float(ended),
            values={
                "best_score": float(best),
                "hypervolume": float(area),
                "front_size": int(size),
                "epochs_spent": int(epochs),
            },
        )
        for step, ended, best, area, size, epochs in zip(
            found.trials, found.ended, found.best, found.hypervolume, found.front, found.epochs
        )
    ]


def _front(records: Sequence[TrialRecord]) -> set[int]:
    return {r.number for r in front_of([r for r in records if r.status is Status.COMPLETED])}
