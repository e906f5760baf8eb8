"""What a search need not find out itself: designs to try first, known results, inherited weights.

All of it follows from the study's files and records, so that a search that was killed goes on with
the same.
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
from trials.record import Cost, Status, TrialRecord


class WarmStart:
    """What a driver asks before it draws, and about each new record.

    Args:
        queue: designs to try before any is drawn.
        inherits: trials start from the weights of others.
    """

    def __init__(
        self,
        space: SearchSpace,
        folder: Path,
        queue: Queue | None = None,
        inherits: bool = False,
    ):
        self.inherits = inherits
        self._space = space
        self._trials = folder.resolve() / "trials"
        queue = queue or Queue()
        self._entries = {entry.identity: entry for entry in queue.entries}
        self._waiting = list(self._entries)
        self._known = self._entries | (
            {queue.baseline.identity: queue.baseline} if queue.baseline else {}
        )

    def next(self, records: Sequence[TrialRecord]) -> Proposal | None:
        """The first design of the queue that no record has; none when all have one."""
        if self._waiting:  # records never go: what has one needs no second look
            met = {record.identity for record in records}
            while self._waiting and self._waiting[0] in met:
                del self._waiting[0]
        return self._proposal(self._entries[self._waiting[0]]) if self._waiting else None

    def begun(self, record: TrialRecord, records: Sequence[TrialRecord]) -> TrialRecord:
        """A new record, before it is stored: with the result that is known, or with the trial it
        inherits from, whose checkpoint is kept for it.

        Raises:
            UserError: that checkpoint cannot be kept (a full disk).
        """
        entry = self._known.get(record.identity)
        if entry is not None and record.number:
            record = record.evolve(source="enqueued", notes=record.notes | {"origin": entry.origin})
        if record.status is not Status.RUNNING:
            return record
        if entry is not None and entry.known is not None:
            known = entry.known
            record = record.evolve(
                status=Status.COMPLETED,
                epochs=known.epochs,
                source=entry.origin,
                ended=record.started,
                notes=record.notes | known.notes,
            )
            return record.evolve(rung=rung_reached(record, self._space.rungs))
        if self.inherits and record.number:
            parent = weight_inheritance.parent_of(record, records, self._workdir)
            if parent is not None:
                weight_inheritance.keep_parent(self._workdir(parent), self._workdir(record))
                record = record.evolve(parent=parent.number)
        return record

    def init(self, record: TrialRecord) -> str | None:
        """The weights that a trial starts from; none: as its recipe says."""
        if record.parent is None:
            return None
        return str(self._workdir(record) / weight_inheritance.INIT)

    def ended(self, record: TrialRecord) -> None:
        """Drop what a trial needs no more."""
        weight_inheritance.drop_parent(self._workdir(record))

    def _workdir(self, record: TrialRecord) -> Path:
        return self._trials / f"{record.number:04d}"

    def _proposal(self, entry: Entry) -> Proposal:
        price = Cost.of(entry.detector)
        return Proposal(
            params=entry.params,
            detector=entry.detector,
            recipe=entry.recipe,
            design=arch_hash(entry.detector),
            cost=price,
            violation=self._space.constraints.violation(price),
        )
