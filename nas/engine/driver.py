"""The search itself: decides what is trained next and stores the results.

Every decision depends only on the records in the study's storage, so a search that was killed
resumes as if it had never stopped.
"""

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
from nas.engine.failures import accumulate, after_failure
from nas.engine.gate import Proposal, baseline, next_proposal
from nas.engine.warm_start import WarmStart
from nas.samplers.proposer import Proposer
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from nas.study.tracker_view import StudyView
from trials.folders import trial_folder
from trials.logs import append_to_log
from trials.plugins import copied_plugins
from trials.record import Cost, EpochResult, Status, TrialRecord, best_of
from trials.run import Failure, Segment, SegmentReport
from trials.tracking.tracker import Tracker

MAX_FAILURES = 0.5
"""Share of failed trials above which a search stops."""
MIN_TRIALS_TO_STOP = 5
"""Trials with an outcome before a search stops because of its share of failed ones."""
INFEASIBLE_BATCH = 64
"""Maximum number of infeasible designs stored together, and so sampled again after a kill."""


@dataclass(frozen=True, kw_only=True)
class TrialSetup:
    """What all trials of a search share."""

    train: Path
    """Folder of the decoded images to train on."""
    holdout: Path
    """Folder of the decoded images to evaluate trials on."""
    device: str = "cpu"
    threads: int = 1
    """Torch threads per worker."""


class Driver:
    """The `trials.compute.trainable.SegmentSource` of a study.

    Args:
        space: with the rungs of this search; the last one is the full budget.
        trials: number of different feasible designs to train, besides the baseline.
        max_failures: share of failed trials, in [0, 1], above which the search stops.
        warm_start: designs to try first, and whether trials inherit weights; None means neither.
        stopwatch: returns the cost of a design with its latency; None if latency is not needed.
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
        warm_start: WarmStart | None = None,
        stopwatch: Callable[[Detector], Cost] | None = None,
    ):
        self.study, self.space, self.trials = study, space, trials
        self.rungs = space.rungs
        self.max_failures = max_failures
        self.view = StudyView(study, tracker, space.objective.metric)
        self._proposer, self._setup, self._stopwatch = proposer, setup, stopwatch
        self._warm_start = warm_start or WarmStart(space, study.folder)
        self._running: set[int] = set()  # numbers of the trials that workers train now
        self.exhausted: UserError | None = None
        """Why no more designs can be sampled; None if they can."""
        self._error: Exception | None = None

    # -- state of the search ------------------------------------------------------------------

    @property
    def records(self) -> list[TrialRecord]:
        return self.study.records

    def completed(self) -> list[TrialRecord]:
        """Trials that were trained with the full budget."""
        return [r for r in self.records if r.status is Status.COMPLETED]

    def num_sampled(self) -> int:
        """Number of feasible designs so far, without the baseline."""
        return sum(r.number != 0 and r.status is not Status.INFEASIBLE for r in self.records)

    def finished(self) -> bool:
        """Whether nothing is left to train."""
        records = self.records
        all_sampled = self.num_sampled() >= self.trials or self.exhausted is not None
        return (
            bool(records)
            and all_sampled
            and not self._unfinished(records)
            and self._promotable(records) is None
            and halving.last_promotion(records, self.rungs) is None
        )

    def stop_reason(self) -> UserError | None:
        """Why the search must stop: the baseline failed, which all designs are compared with, or
        too many trials did. None if it may continue."""
        tried = [r for r in self.records if r.status not in (Status.INFEASIBLE, Status.RUNNING)]
        failed = [r for r in tried if r.status is Status.FAILED]
        if not failed:
            return None
        counts = f"study {self.study.name} stops: {len(failed)} of {len(tried)} trials failed"
        last = f"the last one with: {failed[-1].reason}; fix the cause and start a new study"
        if failed[0].number == 0:
            return UserError(f"{counts}, the baseline among them, {last}")
        if len(tried) < MIN_TRIALS_TO_STOP or len(failed) <= self.max_failures * len(tried):
            return None
        return UserError(
            f"{counts}, more than --max-failures {self.max_failures:g} allows, {last}, "
            "or use --resume with a larger share"
        )

    # -- SegmentSource ------------------------------------------------------------------------

    def next_segment(self) -> Segment | None:
        record = self._next_record()
        while record is not None and record.status.ended:  # its result was reused
            record = self._next_record()
        return self._start(record) if record is not None else None

    def _next_record(self) -> TrialRecord | None:
        self.check()
        records = self.records
        waiting = [r for r in self._unfinished(records) if r.number not in self._running]
        if self.stop_reason():
            record = None
        elif waiting:
            record = waiting[0]
        elif not records:
            record = self._baseline()
        else:
            record = self._promotable(records)
            if record is None and self.exhausted is None and self.num_sampled() < self.trials:
                record = self._sample()
            if record is None and not self._running:
                record = halving.last_promotion(records, self.rungs)
        if record is None and not self._running:
            raise StopIteration
        return record

    def handle_report(self, report: SegmentReport) -> None:
        if self._error is None:
            try:
                self._handle_report(report)
            except Exception as error:  # Ray Tune would log it and continue: `check` raises it
                self._error = error

    def check(self) -> None:
        """Raise the error of an earlier report that could not be stored, such as a full disk."""
        if self._error is not None:
            raise self._error

    def _handle_report(self, report: SegmentReport) -> None:
        if report.number not in self._running:
            return  # a duplicate
        record = self.study.records[report.number]
        notes = record.notes | (report.notes or {})
        if report.failure is not None and report.failure.disk_full:
            raise DiskFull(report.failure.reason)  # the trial resumes once there is space again
        if report.failure is not None and report.failure.images_damaged:
            raise UserError(report.failure.reason)  # --resume decodes them again
        if report.failure is not None:
            self._running.discard(record.number)
            self._handle_failure(record.evolve(notes=notes), report.failure)
            return
        assert report.epoch is not None, "a report has an epoch or a failure"
        self._store_epoch(record.evolve(notes=notes), report.epoch, report.ended)

    def _store_epoch(self, record: TrialRecord, result: EpochResult, ended: bool) -> None:
        """Store an epoch; at the end of its segment the trial is completed or paused."""
        record = record.evolve(epochs=record.epochs + (replace(result, ended=time.time()),))
        rung = halving.rung_reached(record, self.rungs)
        if not ended:
            self.study.put(record.evolve(rung=rung))
            return
        self._running.discard(record.number)
        record = record.evolve(rung=rung, status=Status.PAUSED)
        in_full = result.epoch >= self.rungs[-1]
        self._store(record.trained_in_full(time.time()) if in_full else record)
        if in_full:
            self._warm_start.trial_ended(record)
            if not self._warm_start.inherit:  # otherwise any completed trial may become a parent
                self._delete_checkpoints()

    def close(self) -> None:
        """End a search in which nothing is left to train: prune trials that are still paused."""
        if self._decides:
            cause = "others were more promising after epoch"
        else:
            nor_on_front = " nor on the front" if self.space.promote == "front" else ""
            cause = f"not among the top 1/{self.space.eta:g}{nor_on_front} at epoch"
        for record in self.records:
            if record.status is Status.PAUSED:
                reason = f"{cause} {record.epochs[-1].epoch}"
                if why := record.why_nothing_learned():
                    reason = f"learned nothing: {why}"
                self._store(record.evolve(status=Status.PRUNED, ended=time.time(), reason=reason))
                self._warm_start.trial_ended(record)
        self._delete_checkpoints()

    def reopen(self) -> None:
        """Continue a study that had ended: trials pruned at a rung may be promoted again."""
        for record in self.records:
            at_rung = record.status is Status.PRUNED and not self._trained_in_full(record)
            if at_rung and (self.workdir(record) / LAST).exists():
                self._store(record.evolve(status=Status.PAUSED, ended=None, reason=None))

    def workdir(self, record: TrialRecord) -> Path:
        """Absolute path of the trial's folder."""
        return trial_folder(self.study.folder.resolve(), record.number)

    # -- internals ----------------------------------------------------------------------------

    def _unfinished(self, records: list[TrialRecord]) -> list[TrialRecord]:
        return [r for r in records if r.status is Status.RUNNING]

    @property
    def _decides(self) -> bool:
        """Whether the sampler promotes, in place of successive halving."""
        return self._proposer.promotes and len(self.rungs) > 1

    def _promotable(self, records: list[TrialRecord]) -> TrialRecord | None:
        if not self._decides:
            return halving.promotable(records, self.rungs, self.space.eta, self.space.promote)
        unsampled = 0 if self.exhausted else max(self.trials - self.num_sampled(), 0)
        epochs = halving.epochs_to_promote(
            records, self.trials, unsampled, self.rungs, self.space.eta
        )
        return self._proposer.promotion(records, epochs=epochs, new=unsampled > 0)

    def _baseline(self) -> TrialRecord:
        proposal = baseline(self.space)
        if self._stopwatch is not None:
            proposal = replace(proposal, cost=self._stopwatch(proposal.detector))
        record = proposal.record(0, self.space.objective, source="baseline")
        return self._add(self._warm_start.start_record(record, []))

    def _with_latency(self, proposal: Proposal) -> Proposal:
        """A feasible proposal with its latency, if that is needed; it may violate a cap, too."""
        if self._stopwatch is None or proposal.violation is not None:
            return proposal
        try:
            cost = self._stopwatch(proposal.detector)
        except TrainingError as error:
            return replace(proposal, violation=str(error))
        return replace(proposal, cost=cost, violation=self.space.constraints.violation(cost))

    def _add(self, record: TrialRecord) -> TrialRecord:
        self.study.add(record, self.space.distributions(record.params))
        if record.status.ended:  # the result of another study was reused
            self.view.update(record)
        return record

    def _sample(self) -> TrialRecord | None:
        """Store a new feasible design, and the infeasible ones that were sampled before it; None if
        the space is exhausted."""
        records, infeasible = self.records, list[TrialRecord]()
        while True:
            try:
                proposal = self._with_latency(
                    self._warm_start.next_proposal(records)
                    or next_proposal(self.space, self._proposer, records)
                )
            except UserError as error:  # the space is exhausted
                self.exhausted = error
                self._add_infeasible(infeasible)
                return None
            record = self._warm_start.start_record(
                proposal.record(len(records), self.space.objective), records
            )
            records.append(record)
            if proposal.violation is None:
                self._add_infeasible(infeasible)
                return self._add(record)
            infeasible.append(record)
            if len(infeasible) == INFEASIBLE_BATCH:
                self._add_infeasible(infeasible)
                infeasible = []

    def _add_infeasible(self, records: list[TrialRecord]) -> None:
        if records:
            distributions = [self.space.distributions(record.params) for record in records]
            self.study.add_infeasible(records, distributions)
        for record in records:
            self.view.update(record)

    def _start(self, record: TrialRecord) -> Segment:
        if record.status is not Status.RUNNING:
            record = record.evolve(status=Status.RUNNING)
            self.study.put(record)
        self._running.add(record.number)
        record = self._without_lost_epochs(record)
        return Segment(
            number=record.number,
            detector=record.detector,
            recipe=record.recipe,
            until=halving.target_epoch(record, self.rungs),
            evaluate_at=self.rungs,
            epochs_reported=len(record.epochs),
            init=self._warm_start.inherited_checkpoint(record),
            accumulate=accumulate(record),
            workdir=str(self.workdir(record)),
            train=str(self._setup.train.resolve()),
            holdout=str(self._setup.holdout.resolve()),
            device=self._setup.device,
            threads=self._setup.threads,
            plugins=copied_plugins(self.study.folder),
        )

    def _without_lost_epochs(self, record: TrialRecord) -> TrialRecord:
        """The record, without its epochs if the checkpoint is missing: training starts again.

        A worker saves its checkpoint before it reports an epoch, so a checkpoint may be ahead of
        the record; `fit` then reports the missing epochs.
        """
        if record.epochs and not (self.workdir(record) / LAST).exists():
            record = record.evolve(epochs=(), rung=-1)
            self.study.put(record)
        return record

    def _handle_failure(self, record: TrialRecord, failure: Failure) -> None:
        """Leave the trial running, so that it is retried, or store that it failed."""
        record, line = after_failure(record, failure)
        if record.status is Status.FAILED:
            self._store(record)
            for path in self.workdir(record).glob("*last.*"):
                path.unlink()
        else:
            self.study.put(record)
        if line:
            append_to_log(self.workdir(record), line)

    def _delete_checkpoints(self) -> None:
        """Delete those of trials that were trained in full and are neither the best nor on the
        front."""
        best = best_of(self.records)
        front = front_of(self.completed(), self.space.objective.metric)
        retained = {r.number for r in [*front, *([best] if best else [])]}
        for record in self.records:
            if self._trained_in_full(record) and record.number not in retained:
                (self.workdir(record) / LAST).unlink(missing_ok=True)

    def _trained_in_full(self, record: TrialRecord) -> bool:
        return halving.rung_reached(record, self.rungs) == len(self.rungs) - 1

    def _store(self, record: TrialRecord) -> None:
        self.study.put(record)
        self.view.update(record)
