"""What a search starts from: designs to try first, results to reuse, weights to inherit.

All of it follows from the study's files and records, so a search that was killed resumes with the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detector.config.detector import arch_hash
from nas.engine import weight_inheritance
from nas.engine.enqueued import Entry, Queue
from nas.engine.gate import Proposal
from nas.engine.halving import rung_reached
from nas.search_space.space import SearchSpace
from trials.folders import trial_folder
from trials.record import Cost, Status, TrialRecord


class WarmStart:
    """Proposes designs before the sampler does, and prepares each new record.

    Args:
        folder: of the study.
        queue: designs to try before any is sampled.
        inherit: whether trials start from the weights of the nearest trained design.
    """

    def __init__(
        self,
        space: SearchSpace,
        folder: Path,
        queue: Queue | None = None,
        inherit: bool = False,
    ):
        self.inherit = inherit
        self._space = space
        self._folder = folder.resolve()
        queue = queue or Queue()
        self._entries = {entry.identity: entry for entry in queue.entries}
        self._pending = list(self._entries)
        if queue.baseline:
            self._entries |= {queue.baseline.identity: queue.baseline}

    def next_proposal(self, records: Sequence[TrialRecord]) -> Proposal | None:
        """The first design of the queue that no record has; None if there is none."""
        if self._pending:  # records are never removed, so a design that has one stays settled
            recorded = {record.identity for record in records}
            while self._pending and self._pending[0] in recorded:
                del self._pending[0]
        return self._proposal(self._entries[self._pending[0]]) if self._pending else None

    def start_record(self, record: TrialRecord, records: Sequence[TrialRecord]) -> TrialRecord:
        """Complete a new record before it is stored: with a reused result, or with the trial that
        it inherits from, whose checkpoint is saved.

        Raises:
            UserError: the checkpoint cannot be saved (a full disk).
        """
        entry = self._entries.get(record.identity)
        if entry is not None and record.number:
            record = record.evolve(source="enqueued", notes=record.notes | {"origin": entry.origin})
        if record.status is not Status.RUNNING:
            return record
        if entry is not None and entry.known is not None:
            record = record.evolve(
                epochs=entry.known.epochs,
                source=entry.origin,
                notes=record.notes | entry.known.notes,
            ).trained_in_full(record.started)
            return record.evolve(rung=rung_reached(record, self._space.rungs))
        if self.inherit and record.number:
            parent = weight_inheritance.parent_of(record, records, self._workdir)
            if parent is not None:
                weight_inheritance.save_parent_checkpoint(
                    self._workdir(parent), self._workdir(record)
                )
                record = record.evolve(parent=parent.number)
        return record

    def inherited_checkpoint(self, record: TrialRecord) -> str | None:
        """Path of the checkpoint that a trial starts from; None means the recipe's weights."""
        if record.parent is None:
            return None
        return str(self._workdir(record) / weight_inheritance.INIT)

    def trial_ended(self, record: TrialRecord) -> None:
        """Delete the checkpoint that a trial started from."""
        weight_inheritance.delete_parent_checkpoint(self._workdir(record))

    def _workdir(self, record: TrialRecord) -> Path:
        return trial_folder(self._folder, record.number)

    def _proposal(self, entry: Entry) -> Proposal:
        cost = Cost.of(entry.detector)
        return Proposal(
            params=entry.params,
            detector=entry.detector,
            recipe=entry.recipe,
            design=arch_hash(entry.detector),
            cost=cost,
            violation=self._space.constraints.violation(cost),
        )
