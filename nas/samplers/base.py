"""What all samplers share: their interface, and the trials that they learn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from nas.search_space.dimensions import Params
from trials.record import Status, TrialRecord

MAX_TRIALS = 500
"""Trials that a sampler learns from. In longer studies `representative` selects them, so that a
proposal takes the same time however long the study is."""
GOLDEN_RATIO = (1 + 5**0.5) / 2
"""The fractions of its multiples are spread evenly over [0, 1), however many there are."""


class Sampler(Protocol):
    """Made with a space (and a prior, if it uses one); may cache what it derives from records that
    have not changed. Asked once as many trials have a result as its row in `nas.samplers.proposer`
    says."""

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        """Parameters for the next trial: a function of the arguments.

        Args:
            records: all of the study; see `informative_trials`.
        """


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is trained next: a paused trial, a new design, or (neither) nothing."""

    trial: TrialRecord | None = None
    params: Params | None = None


class Decider(Sampler, Protocol):
    """A sampler that also chooses among paused trials, in place of successive halving."""

    def next_step(
        self, records: Sequence[TrialRecord], seed: int, *, epochs: float, new: bool = True
    ) -> Step:
        """The next step: a function of the arguments.

        Args:
            records: all of the study.
            epochs: that paused trials may still be trained for.
            new: whether it may be a new design.
        """


def informative_trials(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The sampled trials that are neither infeasible nor failed."""
    return [
        record
        for record in records
        if record.params and record.status not in (Status.INFEASIBLE, Status.FAILED)
    ]


def representative(
    keys: Sequence[Any], most: int = MAX_TRIALS, always: Iterable[int] = ()
) -> list[int]:
    """Indices of at most `most` trials that stand for all, ascending: a fifth of them are the best
    and a fifth the latest; the others are spread evenly over the study. With one more trial nearly
    all stay the same.

    Args:
        keys: one for each trial in their order; the best trial has the greatest.
        always: indices that come first, as far as there is room for them.
    """
    count = len(keys)
    if count <= most:
        return list(range(count))
    by_key = sorted(range(count), key=lambda index: keys[index], reverse=True)
    chosen = set(islice(always, most))
    for order, share in (
        (by_key, most // 5),
        (range(count - 1, -1, -1), most // 5),
        (sorted(range(count), key=lambda index: index * GOLDEN_RATIO % 1.0), most),
    ):
        new = islice((index for index in order if index not in chosen), share)
        chosen.update(list(new)[: most - len(chosen)])
    return sorted(chosen)
