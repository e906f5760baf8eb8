"""Asynchronous successive halving that pauses and promotes, as functions of the stored records.

A trial trains to its first rung and is paused there. It is promoted to the next rung once it
is among the top 1/η of all results at its rung, by score (ASHA, Li et al., MLSys 2020, with
pausing instead of stopping); with `promote: front` also once nothing at its rung beats it in both
accuracy and speed. The baseline (number 0) trains through and takes nobody's place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.statistics.pareto import dominated
from trials.record import Status, TrialRecord


def epochs_expected(trials: int, rungs: Sequence[int], eta: float) -> float:
    """Epochs a search trains: all designs to the first rung, 1/η of them to the next, and so on,
    and the baseline in full."""
    total, share, before = float(rungs[-1]), 1.0, 0
    for epochs in rungs:
        total += trials * share * (epochs - before)
        share, before = share / eta, epochs
    return total


def rung_reached(record: TrialRecord, rungs: Sequence[int]) -> int:
    """Index of the last rung whose epochs are trained; -1 before the first."""
    trained = record.epochs[-1].epoch if record.epochs else 0
    return sum(epochs <= trained for epochs in rungs) - 1


def target_epoch(record: TrialRecord, rungs: Sequence[int]) -> int:
    """The epoch at which the record's next segment ends."""
    if record.number == 0:
        return rungs[-1]
    return rungs[min(rung_reached(record, rungs) + 1, len(rungs) - 1)]


def promotable(
    records: Sequence[TrialRecord], rungs: Sequence[int], eta: float, promote: str = "score"
) -> TrialRecord | None:
    """The paused trial to train further now: highest rung first, then best score; or none.

    Args:
        promote: one of PROMOTE.
    """
    for rung in reversed(range(len(rungs) - 1)):
        ranked = _ranking(records, rungs, rung)
        top = ranked[: int(len(ranked) / eta)]
        if promote == "front" and len(ranked) >= eta:  # the first result alone is always a front
            top += _front(ranked[len(top) :], ranked, rungs[rung])
        for record in top:
            if record.status is Status.PAUSED and rung_reached(record, rungs) == rung:
                return record
    return None


def last_promotion(records: Sequence[TrialRecord], rungs: Sequence[int]) -> TrialRecord | None:
    """When all designs are drawn and nothing runs: the one that a search would lack to have a
    sampled design trained in full (too few trials for the rungs to promote any); or none."""
    if any(r.status is Status.COMPLETED and r.number for r in records):
        return None
    for rung in reversed(range(len(rungs) - 1)):
        for record in _ranking(records, rungs, rung):
            if record.status is Status.PAUSED and rung_reached(record, rungs) == rung:
                return record
    return None


def _front(
    among: Sequence[TrialRecord], ranked: Sequence[TrialRecord], epochs: int
) -> list[TrialRecord]:
    """Those of `among` that none of `ranked` beats in both accuracy and speed at a rung."""
    points = np.array([(r.scores()[epochs] - r.speed_score, r.speed_score) for r in ranked])
    beaten = {r.number for r, lost in zip(ranked, dominated(points)) if lost}
    return [r for r in among if r.number not in beaten]


def _ranking(records: Sequence[TrialRecord], rungs: Sequence[int], rung: int) -> list[TrialRecord]:
    """All sampled trials with a result at `rung`, best score first; ties by number.

    A trial that failed later keeps the result it had.
    """
    scored = [(r.scores().get(rungs[rung]), r) for r in records if r.number != 0]
    return [
        r
        for s, r in sorted(
            ((s, r) for s, r in scored if s is not None),
            key=lambda pair: (-pair[0], pair[1].number),
        )
    ]
