"""The search itself: what is trained next, and what came of it. Every decision follows from the
records in the study's storage, so a search that was killed goes on as if nothing had happened."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.pareto import front_of
from detector.config import arch_hash
from detector.errors import UserError
from nas import scheduler
from nas.gate import draw
from nas.samplers import Proposer
from nas.space import SearchSpace
from nas.store import Study
from nas.view import StudyView
from trials.record import Cost, Status, TrialRecord
from trials.run import Segment, SegmentReport
from trials.tracking import Tracker

MAX_RETRIES = 1
MANY_FAILURES = 5


@dataclass(frozen=True, kw_only=True)
class Caches:
    """Folders of the decoded images that all trials share."""

    train: Path
    holdout: Path


class Driver:
    """A SegmentSource over a study: proposals, rungs, records.

    Args:
        trials: sampled, legal, different designs wanted in all; the baseline comes on top.
        rungs: epochs of the rungs, ascending; the last one is the full budget.
        threads: torch threads of a worker.
    """

    def __init__(self, study: Study, space: SearchSpace, tracker: Tracker, *, trials: int,
                 sampler: str, seed: int, rungs: tuple[int, ...], caches: Caches,
                 device: str, threads: int):
        self.study, self.space, self.trials, self.rungs = study, space, trials, rungs
        self.view, self._caches = StudyView(study, tracker), caches
        self._device, self._threads = device, threads
        self._proposer = Proposer(space, sampler, seed=seed)
        self._running: set[int] = set()  # numbers that a worker of this run has
        self.exhausted: UserError | None = None
        """Why no more designs can be drawn."""
        self.started = time.time()
        self.epochs_before = sum(len(r.epochs) for r in study.records)

    # -- what a search consists of ------------------------------------------------------------

    @property
    def records(self) -> list[TrialRecord]:
        return self.study.records

    def sampled(self) -> int:
        """Legal designs drawn so far."""
        return sum(r.number != 0 and r.status is not Status.INFEASIBLE for r in self.records)

    def finished(self) -> bool:
        """Whether nothing is left to train."""
        records = self.records
        drawn = self.sampled() >= self.trials or self.exhausted is not None
        return (bool(records) and drawn and not self._unfinished(records)
                and self._promotable(records) is None
                and scheduler.last_promotion(records, self.rungs) is None)

    def failure(self) -> UserError | None:
        """Why the search should not go on: the baseline failed, which every number is compared
        with, or most trials did, which is no accident."""
        records = self.records
        failed = [r for r in records if r.status is Status.FAILED]
        baseline = bool(failed) and failed[0].number == 0
        if not baseline and (len(failed) < MANY_FAILURES or 2 * len(failed) <= len(records)):
            return None
        return UserError(
            f"study {self.study.name} stops: {len(failed)} of {len(records)} trials failed, "
            + ("the baseline among them, " if baseline else "")
            + f"the last one with: {failed[-1].reason}; mend the cause and start a new study")

    # -- SegmentSource ------------------------------------------------------------------------

    def next_segment(self) -> Segment | None:
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
                record = scheduler.last_promotion(records, self.rungs)
        if record is None and not self._running:
            raise StopIteration
        return self._start(record) if record is not None else None

    def take(self, report: SegmentReport) -> None:
        if report.number not in self._running:
            return  # told twice
        record = self.study.records[report.number]
        notes = record.notes | (report.notes or {})
        if report.failure is not None:
            self._running.discard(record.number)
            self._fail(record.but(notes=notes), report.failure)
            return
        epoch = replace(report.epoch, ended=time.time())
        record = record.but(epochs=record.epochs + (epoch,), notes=notes)
        rung = scheduler.rung_reached(record, self.rungs)
        if not report.ended:
            self.study.put(record.but(rung=rung))
            return
        self._running.discard(record.number)
        completed = report.epoch.epoch >= self.rungs[-1]
        self._store(record.but(rung=rung, status=Status.COMPLETED if completed else Status.PAUSED,
                               ended=time.time() if completed else None))
        if completed:
            self._drop_checkpoints()

    def close(self) -> None:
        """End a search in which nothing is left to train: what is still paused is pruned."""
        place = " nor on the front" if self.space.promote == "front" else ""
        for record in self.records:
            if record.status is Status.PAUSED:
                self._store(record.but(
                    status=Status.PRUNED, ended=time.time(),
                    reason=f"not among the top 1/{self.space.eta:g}{place} at epoch "
                           f"{record.epochs[-1].epoch}"))

    def reopen(self) -> None:
        """Go on with a study that had ended: what was pruned may be promoted again."""
        for record in self.records:
            if record.status is Status.PRUNED and (self.workdir(record) / "last.pt").exists():
                self._store(record.but(status=Status.PAUSED, ended=None, reason=None))

    def workdir(self, record: TrialRecord) -> Path:
        return self.study.folder.resolve() / "trials" / f"{record.number:04d}"

    # -- steps --------------------------------------------------------------------------------

    def _unfinished(self, records: list[TrialRecord]) -> list[TrialRecord]:
        return [r for r in records if r.status is Status.RUNNING]

    def _promotable(self, records: list[TrialRecord]) -> TrialRecord | None:
        return scheduler.promotable(records, self.rungs, self.space.eta, self.space.promote)

    def _baseline(self) -> TrialRecord:
        detector, recipe = self.space.baseline
        return self._record(detector, recipe, params={}, cost=Cost.of(detector),
                            source="baseline")

    def _draw(self) -> TrialRecord | None:
        """A new legal design, stored; infeasible ones drawn on the way are stored, too."""
        while True:
            try:
                found = draw(self.space, self._proposer, self.records)
            except UserError as error:  # the space has no more
                self.exhausted = error
                return None
            record = self._record(found.detector, found.recipe, params=found.params,
                                  cost=found.cost, source="sampled", violation=found.violation)
            if found.violation is None:
                return record

    def _record(self, detector, recipe, *, params: dict, cost: Cost, source: str,
                violation: str | None = None) -> TrialRecord:
        now = time.time()
        record = TrialRecord(
            number=len(self.study.records), design=arch_hash(detector), detector=detector.to_dict(),
            recipe=recipe.to_dict(), params=params, cost=cost, source=source, reason=violation,
            speed_score=self.space.objective.speed_score(cost), started=now,
            status=Status.RUNNING if violation is None else Status.INFEASIBLE,
            ended=None if violation is None else now)
        self.study.add(record, self.space.distributions(params))
        if violation is not None:
            self.view.tell(record)
        return record

    def _start(self, record: TrialRecord) -> Segment:
        if record.status is not Status.RUNNING:
            record = record.but(status=Status.RUNNING)
            self.study.put(record)
        self._running.add(record.number)
        record = self._behind_checkpoint(record)
        return Segment(
            number=record.number, detector=record.detector, recipe=record.recipe,
            until=scheduler.target_epoch(record, self.rungs), evaluate_at=self.rungs,
            told=len(record.epochs),
            workdir=str(self.workdir(record)), train=str(self._caches.train.resolve()),
            holdout=str(self._caches.holdout.resolve()), device=self._device, threads=self._threads)

    def _behind_checkpoint(self, record: TrialRecord) -> TrialRecord:
        """`record` without epochs that its checkpoint lacks (none is there: from the start).

        A worker stores its checkpoint before it reports an epoch, so a checkpoint may also be
        ahead of the record; `fit` then tells what the record lacks."""
        if record.epochs and not (self.workdir(record) / "last.pt").exists():
            record = record.but(epochs=(), rung=-1)
            self.study.put(record)
        return record

    def _fail(self, record: TrialRecord, failure) -> None:
        if failure.may_pass and record.retries < MAX_RETRIES:
            self.study.put(record.but(retries=record.retries + 1))  # running: taken up again
            return
        self._store(record.but(status=Status.FAILED, reason=failure.reason,
                               traceback=failure.traceback, ended=time.time()))
        shutil.rmtree(self.workdir(record), ignore_errors=True)

    def _drop_checkpoints(self) -> None:
        """Completed trials keep theirs while they are the best or on the front."""
        completed = [r for r in self.records if r.status is Status.COMPLETED]
        best = max(completed, key=lambda r: r.score)
        kept = {best.number} | {r.number for r in front_of(completed)}
        for record in completed:
            if record.number not in kept:
                (self.workdir(record) / "last.pt").unlink(missing_ok=True)

    def _store(self, record: TrialRecord) -> None:
        self.study.put(record)
        self.view.tell(record)
