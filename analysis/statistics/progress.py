"""The progress of a search: best score and hypervolume by trials and by epochs, and what the epochs
and the time were spent on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.pareto import objectives, running_fronts
from trials.record import Status, TrialRecord, learned


@dataclass(frozen=True)
class Progress:
    """One entry for each completed trial that has learned something, in the order of completion."""

    trials: np.ndarray
    """int [N], trials started by then, without infeasible ones."""
    ended: np.ndarray
    """float [N], Unix seconds."""
    epochs: np.ndarray
    """int [N], epochs trained by then."""
    best: np.ndarray
    """float [N], best score of a completed trial so far."""
    hypervolume: np.ndarray
    """float [N], area under the front of accuracy × speed so far, in [0, 1]."""
    front: np.ndarray
    """int [N], trials on that front."""


def progress_of(records: Sequence[TrialRecord]) -> Progress:
    """The progress of one search.

    Epochs of older studies have no time of their own and count from the start of their trial.
    """
    started = sorted(
        (r for r in records if r.status is not Status.INFEASIBLE),
        key=lambda r: (r.started or 0.0, r.number),
    )
    completed = sorted(
        (r for r in learned(started) if r.score is not None),
        key=lambda r: (r.ended or 0.0, r.number),
    )
    start_times = np.array([r.started or 0.0 for r in started])
    epoch_times = np.sort(
        [
            (r.started or 0.0) if e.ended is None else e.ended
            for r in started
            if not r.reused
            for e in r.epochs
        ]
    )
    ended = np.array([r.ended or 0.0 for r in completed])
    scores = np.array([r.score for r in completed], dtype=float)
    areas, sizes = running_fronts(objectives(completed))
    return Progress(
        trials=np.searchsorted(start_times, ended, side="right"),
        ended=ended,
        epochs=np.searchsorted(epoch_times, ended, side="right"),
        best=np.maximum.accumulate(scores) if len(scores) else scores,
        hypervolume=areas,
        front=sizes,
    )


def reach(best: np.ndarray, cost: np.ndarray, goal: float) -> float | None:
    """The cost at which `best` ([N], non-decreasing) reaches `goal`; None if it never does."""
    index = int(np.searchsorted(best, goal))
    return float(cost[index]) if index < len(best) else None


@dataclass(frozen=True)
class Spending:
    """What the trials with one outcome cost together."""

    outcome: str
    """A status; of trials that did not train in full, with the last epoch they trained."""
    trials: int
    epochs: int
    seconds: float


def spending(records: Sequence[TrialRecord]) -> list[Spending]:
    """Epochs and time spent, by status and epochs trained; longest trained first.

    Seconds are those inside trials, summed over all workers.
    """
    groups: dict[tuple[int, str], list[TrialRecord]] = {}
    for record in records:
        trained = record.epochs[-1].epoch if record.epochs else 0
        name = record.status.value
        if trained and record.status is not Status.COMPLETED:
            name = f"{name} at epoch {trained}"
        groups.setdefault((-trained, name), []).append(record)
    return [
        Spending(
            name, len(group), sum(r.epochs_spent for r in group), sum(r.seconds for r in group)
        )
        for (_, name), group in sorted(groups.items())
    ]
