"""Which completed trial to take, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.correlation import probability_of_best, tied_with_best
from analysis.statistics.front import front_data
from trials.record import TrialRecord, rank


@dataclass(frozen=True)
class Choice:
    candidates: list[TrialRecord]
    """The front and the best trial, best score first."""
    considered: int
    """Number of trials that they were chosen from."""
    deviation: float | None
    """Standard deviation of a score; None where unknown."""
    source: str
    """What the deviation was estimated from, such as "between epoch 3 and epoch 7"."""
    tied: int
    """How many of the considered trials, best score first, do not differ significantly from the
    best one; 0 where unknown."""
    tied_candidates: int
    """How many of the candidates, from the first one on, are among these; 0 if it stands out."""
    probability: float | None
    """That the first candidate is the best of all considered trials; None where unknown, or where
    it is the only one."""

    @property
    def best(self) -> TrialRecord:
        return self.candidates[0]

    def verdict(self, cost_is_measured: bool, mark: str = "") -> str:
        """Whether the best scores differ significantly, as a sentence without a full stop.

        Args:
            cost_is_measured: whether the score counts a latency.
            mark: how tied candidates are marked where the sentence is shown, such as " (=)".
        """
        if self.considered == 1:
            return "there is no other one to compare it with"
        if self.deviation is None:
            return (
                "whether scores differ significantly is unknown: too few designs, or all alike, "
                "were trained at two budgets"
            )
        return (
            (
                f"the {self.tied} best of {self.considered} trials cannot be told apart at this "
                f"budget, {self.tied_candidates} of the candidates{mark} among them"
                if self.tied > 1
                else "the first one stands out"
            )
            + f": ± is one standard deviation, from how accuracy varies {self.source}; the cost in "
            f"the score is {'measured' if cost_is_measured else 'exact'}"
        )


def choose_from(
    completed: Sequence[TrialRecord], metric: str, score_deviation: tuple[float | None, str]
) -> Choice:
    """The candidates among completed trials that have learned something.

    Args:
        completed: at least one.
        metric: the cost that the score counts, see `analysis.statistics.front.COSTS`.
        score_deviation: as `analysis.statistics.correlation.score_deviation` returns it.
    """
    on_front = {r.number: r for r in front_data(completed, metric).front}
    best = min(completed, key=rank)  # by an expression it need not be on the front
    candidates = sorted((on_front | {best.number: best}).values(), key=rank)
    deviation, source = score_deviation
    tied, tied_candidates, probability = 0, 0, None
    if deviation is not None and len(completed) > 1:
        scores = np.array([r.score for r in completed], dtype=float)
        tied = tied_with_best(scores, deviation)
        probability = probability_of_best(scores, deviation)
        if tied > 1:
            among = {r.number for r in sorted(completed, key=rank)[:tied]}
            tied_candidates = sum(r.number in among for r in candidates)
    return Choice(candidates, len(completed), deviation, source, tied, tied_candidates, probability)
