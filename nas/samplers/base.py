"""What all samplers share: their interface, and the trials that they may learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nas.search_space.dimensions import Params
from trials.record import Status, TrialRecord

STARTUP = {"tpe": 10, "nsga2": 20, "gp": 10, "frugal": 6}
"""Trials with a result before a model of them is asked; chance until then. NSGA-II's is its first
generation."""


class Sampler(Protocol):
    """Made for a space; may keep what it worked out about records that have not changed. Asked once
    STARTUP trials have a result."""

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        """Parameters for the next trial: a function of the arguments.

        Args:
            records: all of the study; see `teaching`.
        """


def teaching(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The sampled ones that tell what is good: neither infeasible nor failed."""
    return [
        record
        for record in records
        if record.params and record.status not in (Status.INFEASIBLE, Status.FAILED)
    ]
