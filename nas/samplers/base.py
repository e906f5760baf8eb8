"""What all samplers share: their interface, and the trials that they learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nas.search_space.dimensions import Params
from trials.record import Status, TrialRecord


class Sampler(Protocol):
    """Made with a space as its one argument; may cache what it derives from records that have not
    changed. Asked once as many trials have a result as its row in `nas.samplers.proposer` says."""

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        """Parameters for the next trial: a function of the arguments.

        Args:
            records: all of the study; see `informative_trials`.
        """


def informative_trials(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The sampled trials that are neither infeasible nor failed."""
    return [
        record
        for record in records
        if record.params and record.status not in (Status.INFEASIBLE, Status.FAILED)
    ]
