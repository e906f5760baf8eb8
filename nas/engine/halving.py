"""Asynchronous successive halving that pauses and promotes, as functions of the stored records.

A trial trains to its first rung and is paused there. It is promoted to the next rung once it
is among the top 1/η of all results at its rung, by score (ASHA, Li et al., MLSys 2020, with
pausing instead of stopping); with `promote: front` also if no trial at its rung dominates it in
accuracy and speed. A trial that has learned nothing by its rung ranks last and is not promoted: it
would be on its speed alone. The baseline (number 0) is trained in full at once and not ranked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.statistics.pareto import dominated
from trials.record import Status, TrialRecord


def epochs_expected(trials: int, rungs: Sequence[int], eta: float) -> float:
    """Expected epochs of a search: all designs to the first rung, 1/η of them to the next, and so
    on, and the baseline in full."""
    total, fraction, previous = float(rungs[-1]), 1.0, 0
    for epochs in rungs:
        total += trials * fraction * (epochs - previous)
        fraction, previous = fraction / eta, epochs
    return total


def epochs_of_search(
    records: Sequence[TrialRecord], trials: int, rungs: Sequence[int], eta: float, more: float = 1.0
) -> float:
    """`epochs_expected` of a search in which some records are results of another study, which take
    no epochs.

    Args:
        more: factor of the epochs of each design.
    """
    reused = [record.number for record in records if record.reused]
    designs = trials - sum(number > 0 for number in reused)
    baseline = 0 if 0 in reused else rungs[-1]
    return baseline + more * (epochs_expected(designs, rungs, eta) - rungs[-1])


def certain_epochs(records: Sequence[TrialRecord], unsampled: int, rungs: Sequence[int]) -> int:
    """Epochs that a search still trains whatever is promoted: its running segments, and the first
    rung of the `unsampled` designs that are still to come."""
    running = sum(
        target_epoch(r, rungs) - len(r.epochs) for r in records if r.status is Status.RUNNING
    )
    return running + unsampled * rungs[0]


def epochs_to_promote(
    records: Sequence[TrialRecord], trials: int, unsampled: int, rungs: Sequence[int], eta: float
) -> float:
    """Epochs that promotions may take so that a search takes `epochs_of_search` in all."""
    spent = sum(record.epochs_spent for record in records)
    expected = epochs_of_search(records, trials, rungs, eta)
    return expected - spent - certain_epochs(records, unsampled, rungs)


def rung_reached(record: TrialRecord, rungs: Sequence[int]) -> int:
    """Index of the last rung that a trial has reached; -1 before the first."""
    trained = record.epochs[-1].epoch if record.epochs else 0
    return sum(epochs <= trained for epochs in rungs) - 1


def target_epoch(record: TrialRecord, rungs: Sequence[int]) -> int:
    """The epoch at which a trial's next segment ends."""
    if record.number == 0:
        return rungs[-1]
    return rungs[min(rung_reached(record, rungs) + 1, len(rungs) - 1)]


def promotable(
    records: Sequence[TrialRecord], rungs: Sequence[int], eta: float, promote: str = "score"
) -> TrialRecord | None:
    """The paused trial to promote next, highest rung first, then best score; None if there is none.

    Args:
        promote: one of `nas.search_space.yaml_parts.PROMOTE`.
    """
    for rung in reversed(range(len(rungs) - 1)):
        ranked = _ranking(records, rungs, rung)
        top = ranked[: int(len(ranked) / eta)]
        if promote == "front" and len(ranked) >= eta:  # a single result is always a front
            top += _on_front(ranked[len(top) :], ranked, rungs[rung])
        for record in top:
            if _waits_at(record, rungs, rung) and not record.why_nothing_learned():
                return record
    return None


def last_promotion(records: Sequence[TrialRecord], rungs: Sequence[int]) -> TrialRecord | None:
    """The trial to promote although it is not among the top 1/η, once all designs are sampled and
    none is running: at least one sampled design is to be trained in full, and with few trials the
    rungs may promote none. None if one is completed, or none is paused. Without others, one trial
    that has learned nothing is promoted, since it may be a slow learner, but no second one."""
    if any(r.status is Status.COMPLETED and r.number for r in records):
        return None
    waiting = [
        record
        for rung in reversed(range(len(rungs) - 1))
        for record in _ranking(records, rungs, rung)
        if _waits_at(record, rungs, rung)
    ]
    learned = [record for record in waiting if not record.why_nothing_learned()]
    if not learned and any(r.number and rung_reached(r, rungs) == len(rungs) - 1 for r in records):
        return None
    return next(iter(learned or waiting), None)


def _waits_at(record: TrialRecord, rungs: Sequence[int], rung: int) -> bool:
    return record.status is Status.PAUSED and rung_reached(record, rungs) == rung


def _on_front(
    candidates: Sequence[TrialRecord], ranked: Sequence[TrialRecord], epochs: int
) -> list[TrialRecord]:
    """Candidates that none of `ranked` dominates in accuracy and speed after `epochs` epochs."""
    accuracy = [next(e.accuracy_score for e in r.epochs if e.epoch == epochs) for r in ranked]
    points = np.array([(a, r.speed_score) for a, r in zip(accuracy, ranked)], dtype=float)
    dominated_numbers = {r.number for r, worse in zip(ranked, dominated(points)) if worse}
    return [r for r in candidates if r.number not in dominated_numbers]


def _ranking(records: Sequence[TrialRecord], rungs: Sequence[int], rung: int) -> list[TrialRecord]:
    """All sampled trials with a result at `rung`, best score first; ties by number. Those that have
    learned nothing by then come after all others.

    The result of a trial that failed later still counts.
    """
    scored = [
        (r.why_nothing_learned(until=rungs[rung]) is not None, -score, r.number, r)
        for r in records
        if r.number != 0 and (score := r.scores().get(rungs[rung])) is not None
    ]
    return [r for *_, r in sorted(scored, key=lambda entry: entry[:3])]
