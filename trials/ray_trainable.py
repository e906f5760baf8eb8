"""Segments on Ray Tune. With `ray_train`, the only file that imports Ray.

A Ray Tune "trial" is one segment: one design, from its last rung to its next. So a pause is
simply the end of a segment, a promotion the start of another in a reused worker, and Ray keeps
no state that a search would need after a crash: that is all in the study's storage and in the
trials' folders.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

# Ray reads these when it is imported or started.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# The coming default of Ray, which warns otherwise.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the study is the record
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is the command's to handle
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import ray
from ray import tune
from ray.tune.search import Searcher

from trials.run import Failure, Segment, SegmentReport, run_segment


class SegmentSource(Protocol):
    """Who decides what is trained next and takes down what came of it (the driver)."""

    def next_segment(self) -> Segment | None:
        """The next segment; none where nothing can start before a running one ends.

        Raises StopIteration when the search has ended."""

    def take(self, report: SegmentReport) -> None: ...


class SegmentTrainable(tune.Trainable):
    """Trains a segment, one epoch a step."""

    def setup(self, config: dict):
        self._start(config)

    def reset_config(self, new_config: dict) -> bool:
        self._start(new_config)
        return True

    def _start(self, config: dict) -> None:
        self._reports = run_segment(Segment.from_dict(config["segment"]))

    def step(self) -> dict:
        report = next(self._reports)
        return {"report": json.dumps(report.to_dict()), tune.result.DONE: report.ended}

    def save_checkpoint(self, checkpoint_dir: str):
        """Nothing: `fit` has its own, in the trial's folder."""

    def load_checkpoint(self, checkpoint):
        """Nothing to load."""


class _Hand(Searcher):
    """Ray's questions, answered by a SegmentSource."""

    def __init__(self, source: SegmentSource):
        super().__init__(metric="training_iteration", mode="max")  # not looked at
        self._source = source
        self._running: dict[str, int] = {}

    def suggest(self, trial_id: str):
        try:
            segment = self._source.next_segment()
        except StopIteration:
            return Searcher.FINISHED
        if segment is None:
            return None
        self._running[trial_id] = segment.number
        return {"segment": segment.to_dict()}

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        report = _read(result)
        if report.ended:
            self._running.pop(trial_id, None)
        self._source.take(report)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False):
        number = self._running.pop(trial_id, None)
        if number is not None and result and "report" in result and not error:
            self._source.take(_read(result))
        elif number is not None:
            self._source.take(SegmentReport(number=number, ended=True, failure=Failure(
                reason="the worker process died (killed, or out of memory)", may_pass=True)))

    def save(self, checkpoint_path: str):
        """Nothing: the source stores what it decides."""

    def restore(self, checkpoint_path: str):
        """Nothing to restore."""


def _read(result: dict) -> SegmentReport:
    return SegmentReport.from_dict(json.loads(result["report"]))


class _Watch(tune.Callback):
    """Calls `tick` as often as Tune's loop turns, for the live line."""

    def __init__(self, tick):
        self._tick = tick

    def on_step_end(self, iteration, trials, **info):
        self._tick()


def run_on_ray(source: SegmentSource, *, concurrency: int, cpus_per_trial: float,
               gpus_per_trial: float, tick=lambda: None) -> None:
    """Run segments from `source` until it has no more, `concurrency` at a time.

    Starts a local Ray and ends it again.
    """
    ray.init(num_cpus=max(1, round(concurrency * cpus_per_trial)), include_dashboard=False,
             log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.1")
    scratch = Path(tempfile.mkdtemp(prefix="tune-"))  # Ray Tune insists on a folder of its own
    try:
        tuner = tune.Tuner(
            tune.with_resources(SegmentTrainable, {"cpu": cpus_per_trial, "gpu": gpus_per_trial}),
            tune_config=tune.TuneConfig(search_alg=_Hand(source), num_samples=-1,
                                        max_concurrent_trials=concurrency, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(scratch), name="segments", verbose=0,
                                      callbacks=[_Watch(tick)],
                                      failure_config=tune.FailureConfig(max_failures=0)))
        tuner.fit()
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
