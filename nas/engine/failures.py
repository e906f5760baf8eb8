"""What becomes of a trial whose training failed: it is retried, or it has failed."""

from __future__ import annotations

import logging
import time

from trials.record import Status, TrialRecord
from trials.run import Failure

MAX_RETRIES = 1  # of a trial whose worker was killed, say, until it has trained another epoch
MAX_NODES_LOST = 3
"""Nodes that may die while they train a trial before it counts as a failure of the trial."""
MAX_DAMAGED_CHECKPOINTS = 3
"""Damaged checkpoints after each of which a trial starts again."""

logger = logging.getLogger(__name__)


def after_failure(record: TrialRecord, failure: Failure) -> tuple[TrialRecord, str | None]:
    """The record of a running trial after a failure, and a line for its log.

    It is still running if the trial is to be retried.
    """
    notes, reason = record.notes, failure.reason
    nodes_lost = notes.get("nodes_lost", 0)
    if failure.node_died and nodes_lost < MAX_NODES_LOST:
        return record.evolve(notes=notes | {"nodes_lost": nodes_lost + 1}), None
    restarts = notes.get("damaged_checkpoints", 0)
    if failure.checkpoint_damaged and restarts < MAX_DAMAGED_CHECKPOINTS:
        logger.warning("note: trial %d starts again: %s", record.number, reason)
        return (
            record.evolve(notes=notes | {"damaged_checkpoints": restarts + 1}),
            f"starts again: {reason}",
        )
    retried_at = notes.get("retried_at", [])  # epochs trained by then
    if failure.out_of_memory:
        batch_size = record.recipe.batch_size
        if accumulate(record) < batch_size:
            parts = min(2 * accumulate(record), batch_size)
            return (
                record.evolve(notes=notes | {"accumulate": parts}),
                f"will be retried in {parts} parts a step: {reason}",
            )
        reason += f"; even with one image at a time ({accumulate(record)} parts a step)"
    elif failure.is_transient and retried_at.count(len(record.epochs)) < MAX_RETRIES:
        notes = notes | {"retried_at": [*retried_at, len(record.epochs)]}
        return record.evolve(retries=record.retries + 1, notes=notes), f"will be retried: {reason}"
    failed = record.evolve(
        status=Status.FAILED, reason=reason, traceback=failure.traceback, ended=time.time()
    )
    return failed, f"failed: {reason}"


def accumulate(record: TrialRecord) -> int:
    """Parts in which the images of a step are processed: as in the recipe, or more after the trial
    ran out of memory."""
    return max(record.recipe.accumulate, record.notes.get("accumulate", 1))
