"""The search itself: what is trained next, and what came of it. Every decision follows from the
records in the study's storage, so a search that was killed goes on as if nothing had happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.statistics.pareto import front_of
from detector.base.errors import DiskFull, TrainingError, UserError
from detector.config.detector import Detector
from detector.weights.file_names import LAST
from nas.engine import halving
from nas.engine.gate import Proposal, baseline, next_proposal
from nas.engine.warm_start import WarmStart
from nas.samplers.proposer import Proposer
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from nas.study.tracker_view import StudyView
from trials.logs import append_to_log
from trials.record import Cost, EpochResult, Status, TrialRecord, best_of
from trials.run import Failure, Segment, SegmentReport
from trials.tracking.tracker import Tracker

MAX_RETRIES = 1
MAX_NODES_LOST = 3
"""Nodes that may die under one trial: they tell nothing about it, unless it is what kills them."""
MAX_FAILURES = 0.5
"""Share of the trials that may fail before a search stops."""
SOME_TRIALS = 5
"""Trials with an outcome before their share of failures tells anything."""
BATCH = 64
"""Infeasible designs that are stored together at most: as many are drawn again after a kill."""


@dataclass(frozen=True, kw_only=True)
class TrialSetup:
    """What all trials of a search share."""

    train: Path
    """Folder of the decoded images to train on."""
    holdout: Path
    """Folder of those that trials are compared on."""
    device: str = "cpu"
    threads: int = 1
    """Torch threads of a worker."""


class Driver:
    """A SegmentSource over a study: proposals, rungs, records.

    Args:
        space: with the rungs of this search; its last one is the full budget.
        trials: sampled, legal, different designs wanted in all; the baseline comes on top.
        max_failures: share of failed trials, in [0, 1], above which the search stops.
        warm: designs to try first, and whether trials inherit weights; None for neither.
        stopwatch: cost of a design with its latency, if the score or a cap asks for that.
    """

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        tracker: Tracker,
        proposer: Proposer,
        setup: TrialSetup,
        *,
        trials: int,
        max_failures: float = MAX_FAILURES,
        warm: WarmStart | None = None,
        stopwatch: Callable[[Detector], Cost] | None = None,
    ):
        self.study, self.space, self.trials = study, space, trials
        self.rungs = space.rungs
        self.max_failures = max_failures
        self.view = StudyView(study, tracker)
        self._proposer, self._setup, self._stopwatch = proposer, setup, stopwatch
        self._warm = warm or WarmStart(space, study.folder)
        self._running: set[int] = set()  # numbers that a worker of this run has
        self.exhausted: UserError | None = None
        """Why no more designs can be drawn."""
        self._fault: Exception | None = None
        self.started = time.time()
        self.epochs_before = sum(r.epochs_spent for r in study.records)

    # -- what a search consists of ------------------------------------------------------------

    @property
    def records(self) -> list[TrialRecord]:
        return self.study.records

    def completed(self) -> list[TrialRecord]:
        """Trials with their full budget."""
        return [r for r in self.records if r.status is Status.COMPLETED]

    def sampled(self) -> int:
        """Legal designs drawn so far."""
        return sum(r.number != 0 and r.status is not Status.INFEASIBLE for r in self.records)

    def finished(self) -> bool:
        """Whether nothing is left to train."""
        records = self.records
        drawn = self.sampled() >= self.trials or self.exhausted is not None
        return (
            bool(records)
            and drawn
            and not self._unfinished(records)
            and self._promotable(records) is None
            and halving.last_promotion(records, self.rungs) is None
        )

    def failure(self) -> UserError | None:
        """Why the search should not go on: the baseline failed, which every number is compared
        with, or more trials did than may, which is no accident."""
        tried = [r for r in self.records if r.status not in (Status.INFEASIBLE, Status.RUNNING)]
        failed = [r for r in tried if r.status is Status.FAILED]
        if not failed:
            return None
        told = f"study {self.study.name} stops: {len(failed)} of {len(tried)} trials failed"
        last = f"the last one with: {failed[-1].reason}; mend the cause and start a new study"
        if failed[0].number == 0:
            return UserError(f"{told}, the baseline among them, {last}")
        if len(tried) < SOME_TRIALS or len(failed) <= self.max_failures * len(tried):
            return None
        return UserError(
            f"{told}, more than --max-failures {self.max_failures:g} allows, {last}, "
            "or go on with --resume and a larger share"
        )

    # -- SegmentSource ------------------------------------------------------------------------

    def next_segment(self) -> Segment | None:
        record = self._next_record()
        while record is not None and record.status.ended:  # its result is known already
            record = self._next_record()
        return self._start(record) if record is not None else None

    def _next_record(self) -> TrialRecord | None:
        self.check()
        records = self.records
        waiting = [r for r in self._unfinished(records) if r.number not in self._running]
        if self.failure():
            record = None
        elif waiting:
            record = waiting[0]
        elif not records:
            record = self._baseline()
        else:
            record = self._promotable(records)
            if record is None and self.exhausted is None and self.sampled() < self.trials:
                record = self._draw()
            if record is None and not self._running:
                record = halving.last_promotion(records, self.rungs)
        if record is None and not self._running:
            raise StopIteration
        return record

    def take(self, report: SegmentReport) -> None:
        if self._fault is None:
            try:
                self._take(report)
            except Exception as error:  # Ray Tune would log it and go on: `check` raises it
                self._fault = error

    def check(self) -> None:
        """Raises what keeps the search from storing its records, such as a full disk."""
        if self._fault is not None:
            raise self._fault

    def _take(self, report: SegmentReport) -> None:
        if report.number not in self._running:
            return  # reported twice
        record = self.study.records[report.number]
        notes = record.notes | (report.notes or {})
        if report.failure is not None and report.failure.disk_full:
            raise DiskFull(report.failure.reason)  # the trial goes on when there is room again
        if report.failure is not None:
            self._running.discard(record.number)
            self._fail(record.evolve(notes=notes), report.failure)
            return
        assert report.epoch is not None, "a report has an epoch or a failure"
        self._take_epoch(record.evolve(notes=notes), report.epoch, report.ended)

    def _take_epoch(self, record: TrialRecord, result: EpochResult, ended: bool) -> None:
        """Store an epoch; at the end of its segment the trial is completed or paused."""
        record = record.evolve(epochs=record.epochs + (replace(result, ended=time.time()),))
        rung = halving.rung_reached(record, self.rungs)
        if not ended:
            self.study.put(record.evolve(rung=rung))
            return
        self._running.discard(record.number)
        completed = result.epoch >= self.rungs[-1]
        self._store(
            record.evolve(
                rung=rung,
                status=Status.COMPLETED if completed else Status.PAUSED,
                ended=time.time() if completed else None,
            )
        )
        if completed:
            self._warm.ended(record)
            if not self._warm.inherits:  # else any of them may become a parent
                self._drop_checkpoints()

    def close(self) -> None:
        """End a search in which nothing is left to train: what is still paused is pruned."""
        place = " nor on the front" if self.space.promote == "front" else ""
        for record in self.records:
            if record.status is Status.PAUSED:
                self._store(
                    record.evolve(
                        status=Status.PRUNED,
                        ended=time.time(),
                        reason=f"not among the top 1/{self.space.eta:g}{place} at epoch "
                        f"{record.epochs[-1].epoch}",
                    )
                )
                self._warm.ended(record)
        self._drop_checkpoints()

    def reopen(self) -> None:
        """Go on with a study that had ended: what was pruned may be promoted again."""
        for record in self.records:
            if record.status is Status.PRUNED and (self.workdir(record) / LAST).exists():
                self._store(record.evolve(status=Status.PAUSED, ended=None, reason=None))

    def workdir(self, record: TrialRecord) -> Path:
        return self.study.folder.resolve() / "trials" / f"{record.number:04d}"

    # -- steps --------------------------------------------------------------------------------

    def _unfinished(self, records: list[TrialRecord]) -> list[TrialRecord]:
        return [r for r in records if r.status is Status.RUNNING]

    def _promotable(self, records: list[TrialRecord]) -> TrialRecord | None:
        return halving.promotable(records, self.rungs, self.space.eta, self.space.promote)

    def _baseline(self) -> TrialRecord:
        proposal = baseline(self.space)
        if self._stopwatch is not None:
            proposal = replace(proposal, cost=self._stopwatch(proposal.detector))
        record = proposal.record(0, self.space.objective, source="baseline")
        return self._add(self._warm.begun(record, []))

    def _measured(self, proposal: Proposal) -> Proposal:
        """A legal proposal with its latency if that is asked for, which may break a cap, too."""
        if self._stopwatch is None or proposal.violation is not None:
            return proposal
        try:
            cost = self._stopwatch(proposal.detector)
        except TrainingError as error:
            return replace(proposal, violation=str(error))
        return replace(proposal, cost=cost, violation=self.space.constraints.violation(cost))

    def _add(self, record: TrialRecord) -> TrialRecord:
        self.study.add(record, self.space.distributions(record.params))
        if record.status.ended:  # taken over from another study
            self.view.tell(record)
        return record

    def _draw(self) -> TrialRecord | None:
        """A new legal design, stored; infeasible ones drawn on the way are stored before it."""
        records, infeasible = self.records, list[TrialRecord]()
        while True:
            try:
                proposal = self._measured(
                    self._warm.next(records) or next_proposal(self.space, self._proposer, records)
                )
            except UserError as error:  # the space has no more
                self.exhausted = error
                self._set_aside(infeasible)
                return None
            record = self._warm.begun(proposal.record(len(records), self.space.objective), records)
            records.append(record)
            if proposal.violation is None:
                self._set_aside(infeasible)
                return self._add(record)
            infeasible.append(record)
            if len(infeasible) == BATCH:
                self._set_aside(infeasible)
                infeasible = []

    def _set_aside(self, infeasible: list[TrialRecord]) -> None:
        if infeasible:
            self.study.add_infeasible(infeasible)
        for record in infeasible:
            self.view.tell(record)

    def _start(self, record: TrialRecord) -> Segment:
        if record.status is not Status.RUNNING:
            record = record.evolve(status=Status.RUNNING)
            self.study.put(record)
        self._running.add(record.number)
        record = self._behind_checkpoint(record)
        return Segment(
            number=record.number,
            detector=record.detector,
            recipe=record.recipe,
            until=halving.target_epoch(record, self.rungs),
            evaluate_at=self.rungs,
            told=len(record.epochs),
            init=self._warm.init(record),
            accumulate=_parts(record),
            workdir=str(self.workdir(record)),
            train=str(self._setup.train.resolve()),
            holdout=str(self._setup.holdout.resolve()),
            device=self._setup.device,
            threads=self._setup.threads,
        )

    def _behind_checkpoint(self, record: TrialRecord) -> TrialRecord:
        """`record` without epochs that its checkpoint lacks (none is there: from the start).

        A worker stores its checkpoint before it reports an epoch, so a checkpoint may also be
        ahead of the record; `fit` then tells what the record lacks."""
        if record.epochs and not (self.workdir(record) / LAST).exists():
            record = record.evolve(epochs=(), rung=-1)
            self.study.put(record)
        return record

    def _fail(self, record: TrialRecord, failure: Failure) -> None:
        lost = record.notes.get("nodes_lost", 0)
        if failure.node_died and lost < MAX_NODES_LOST:
            self.study.put(record.evolve(notes=record.notes | {"nodes_lost": lost + 1}))
            return
        reason = failure.reason
        if failure.out_of_memory:
            if self._with_more_parts(record, reason):
                return
            reason += f"; even with one image at a time ({_parts(record)} parts a step)"
        elif failure.is_transient and record.retries < MAX_RETRIES:
            self.study.put(record.evolve(retries=record.retries + 1))  # running: taken up again
            append_to_log(self.workdir(record), f"to be tried again: {reason}")
            return
        self._store(
            record.evolve(
                status=Status.FAILED, reason=reason, traceback=failure.traceback, ended=time.time()
            )
        )
        append_to_log(self.workdir(record), f"failed: {reason}")
        for path in self.workdir(record).glob("*last.*"):
            path.unlink()

    def _with_more_parts(self, record: TrialRecord, reason: str) -> bool:
        """Have a trial that ran out of memory tried again with half as many images at a time;
        False: it had one already."""
        images = record.recipe.batch_size
        if _parts(record) >= images:
            return False
        parts = min(2 * _parts(record), images)
        self.study.put(record.evolve(notes=record.notes | {"accumulate": parts}))
        append_to_log(self.workdir(record), f"to be tried again in {parts} parts a step: {reason}")
        return True

    def _drop_checkpoints(self) -> None:
        """Completed trials keep theirs while they are the best or on the front."""
        completed, best = self.completed(), best_of(self.records)
        if best is None:
            return
        kept = {best.number} | {r.number for r in front_of(completed)}
        for record in completed:
            if record.number not in kept:
                (self.workdir(record) / LAST).unlink(missing_ok=True)

    def _store(self, record: TrialRecord) -> None:
        self.study.put(record)
        self.view.tell(record)


def _parts(record: TrialRecord) -> int:
    """In which a trial takes the images of a step: as its recipe says, more of them where it ran
    out of memory."""
    return max(record.recipe.accumulate, record.notes.get("accumulate", 1))
