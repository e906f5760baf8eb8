"""Segments on Ray Tune.

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
import time
from pathlib import Path
from typing import Protocol

# Tune reads these when it is imported.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the study is the record
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is the command's to handle
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import trials.compute.settings  # noqa: F401  isort: skip  (before Ray itself)

import ray
from ray import tune
from ray.tune.search import Searcher

from trials.compute.cluster import Stopwatch, dead_nodes, running
from trials.compute.resources import Shares
from trials.run import Failure, Segment, SegmentReport, run_segment

NODE_SILENCE = 20.0
"""Seconds in which a cluster notices that a machine is gone; a worker's death shows at once."""


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
        if report.ended:  # the worker may idle from here on: let go of the model
            self._reports.close()
        return {
            "report": json.dumps(report.to_dict()),
            tune.result.DONE: report.ended,
            "node": ray.get_runtime_context().get_node_id(),
        }

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
        self._nodes: dict[str, str] = {}  # where a segment runs, once it has told
        self._dead: dict[str, set[str]] = {}  # nodes that were dead when it began

    def suggest(self, trial_id: str):
        try:
            segment = self._source.next_segment()
        except StopIteration:
            return Searcher.FINISHED
        if segment is None:
            return None
        self._running[trial_id] = segment.number
        self._dead[trial_id] = dead_nodes()
        return {"segment": segment.to_dict()}

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        report = _read(result)
        self._nodes[trial_id] = result["node"]
        if report.ended:
            self._running.pop(trial_id, None)
        self._source.take(report)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False):
        number = self._running.pop(trial_id, None)
        if number is not None and result and "report" in result and not error:
            self._source.take(_read(result))
        elif number is not None:
            died = self._node_died(trial_id)
            self._source.take(
                SegmentReport(
                    number=number,
                    ended=True,
                    failure=Failure(
                        reason="the node it ran on died"
                        if died
                        else "the worker process died (killed, or out of memory)",
                        is_transient=True,
                        node_died=died,
                    ),
                )
            )

    def _node_died(self, trial_id: str) -> bool:
        """Whether the node of a lost segment went with it; where that segment had not told yet
        where it ran: whether any went since it began."""
        node, before = self._nodes.get(trial_id), self._dead[trial_id]
        until = time.monotonic() + (NODE_SILENCE if len(ray.nodes()) > 1 else 0)
        while True:
            dead = dead_nodes()
            if node in dead if node else dead - before:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.5)

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


def run_on_ray(
    source: SegmentSource,
    shares: Shares,
    *,
    scratch: Path | None = None,
    stopwatch: Stopwatch | None = None,
    tick=lambda: None,
) -> None:
    """Run segments from `source` until it has no more, `shares.concurrency` at a time.

    Starts a local Ray and ends it again, unless a cluster is connected.

    Args:
        scratch: folder for what Ray Tune insists on writing, removed again; on a cluster one that
            all nodes see. None: a temporary one.
        stopwatch: started before the first segment is asked for.
        tick: called as often as Tune's loop turns.

    Raises:
        UserError: the stopwatch cannot be had.
    """
    aside = Path(tempfile.mkdtemp(prefix="tune-", dir=scratch))
    try:
        with running(shares):
            if stopwatch is not None:
                stopwatch.start(shares)
            tuner = tune.Tuner(
                tune.with_resources(SegmentTrainable, {"cpu": shares.cpus, "gpu": shares.gpus}),
                tune_config=tune.TuneConfig(
                    search_alg=_Hand(source),
                    num_samples=-1,
                    max_concurrent_trials=shares.concurrency,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=str(aside.resolve()),
                    name="segments",
                    verbose=0,
                    callbacks=[_Watch(tick)],
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            )
            tuner.fit()
    finally:
        shutil.rmtree(aside, ignore_errors=True)
