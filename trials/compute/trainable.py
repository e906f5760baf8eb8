"""Segments on Ray Tune.

A Ray Tune "trial" is one segment: one design, from its last rung to its next. So a pause is
simply the end of a segment, a promotion is the start of another one in a reused worker, and Ray
keeps no state that a search would need after a crash: that is all in the study's storage and the
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
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the command handles Ctrl-C
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import trials.compute.settings  # noqa: F401  isort: skip  (before Ray itself)

import ray
from ray import tune
from ray.tune.search import Searcher

from detector.base.plugins import load_plugins
from trials.compute.cluster import Stopwatch, dead_nodes, running
from trials.compute.local_ray import RayDied, check_alive
from trials.compute.resources import Shares
from trials.run import Failure, Segment, SegmentReport, run_segment

NODE_SILENCE = 20.0
"""Seconds until a cluster notices that a machine is gone; a worker's death shows at once."""


class SegmentSource(Protocol):
    """Decides what is trained next and stores the results (the driver)."""

    def next_segment(self) -> Segment | None:
        """The next segment; None if none can start before a running one ends.

        Raises:
            StopIteration: the search has ended.
        """

    def handle_report(self, report: SegmentReport) -> None:
        """Store a worker's report."""


class SegmentTrainable(tune.Trainable):
    """Trains a segment, one epoch per step."""

    def setup(self, config: dict):
        self._start(config)

    def reset_config(self, new_config: dict) -> bool:
        self._start(new_config)
        return True

    def _start(self, config: dict) -> None:
        load_plugins(config["segment"].get("plugins", ()))  # before the design is read
        self._reports = run_segment(Segment.from_dict(config["segment"]))

    def step(self) -> dict:
        report = next(self._reports)
        if report.ended:  # free the model, as the worker may be idle from now on
            self._reports.close()
        return {
            "report": json.dumps(report.to_dict()),
            tune.result.DONE: report.ended,
            "node": ray.get_runtime_context().get_node_id(),
        }

    def save_checkpoint(self, checkpoint_dir: str):
        """Does nothing: `fit` writes its own checkpoints into the trial's folder."""

    def load_checkpoint(self, checkpoint):
        """Does nothing, see `save_checkpoint`."""


class SegmentSearcher(Searcher):
    """A Ray Tune search algorithm that takes its segments from a SegmentSource."""

    def __init__(self, source: SegmentSource):
        super().__init__(metric="training_iteration", mode="max")  # unused
        self._source = source
        self._running: dict[str, int] = {}
        self._nodes: dict[str, str] = {}  # node of a segment, known after its first report
        self._dead: dict[str, set[str]] = {}  # nodes that were dead when it started

    def suggest(self, trial_id: str):
        check_alive()  # what follows asks Ray, which would not answer
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
        self._source.handle_report(report)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False):
        number = self._running.pop(trial_id, None)
        if number is not None and result and "report" in result and not error:
            self._source.handle_report(_read(result))
        elif number is not None:
            try:
                check_alive()
            except RayDied:  # no trial is the cause; `_TickCallback` ends the search
                return
            node_died = self._node_died(trial_id)
            self._source.handle_report(
                SegmentReport(
                    number=number,
                    ended=True,
                    failure=Failure(
                        reason="the node it ran on died"
                        if node_died
                        else "the worker process died (killed, out of memory, or a crash)",
                        is_transient=True,
                        node_died=node_died,
                    ),
                )
            )

    def _node_died(self, trial_id: str) -> bool:
        """Whether the node of a lost segment died; if its node is not known yet, whether any node
        has died since it started."""
        node, dead_before = self._nodes.get(trial_id), self._dead[trial_id]
        until = time.monotonic() + (NODE_SILENCE if len(ray.nodes()) > 1 else 0)
        while True:
            dead = dead_nodes()
            if node in dead if node else dead - dead_before:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.5)

    def save(self, checkpoint_path: str):
        """Does nothing: the source stores its state."""

    def restore(self, checkpoint_path: str):
        """Does nothing, see `save`."""


def _read(result: dict) -> SegmentReport:
    return SegmentReport.from_dict(json.loads(result["report"]))


class _TickCallback(tune.Callback):
    """Calls `tick` in every turn of Tune's loop while Ray is alive, to show the progress."""

    def __init__(self, tick):
        self._tick = tick

    def __reduce__(self):
        """Pickled by Tune for a resume of its own, which is never made, without `tick`."""
        return tune.Callback, ()

    def on_step_end(self, iteration, trials, **info):
        check_alive()
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
        scratch: folder for Ray Tune's temporary files; on a cluster one that all nodes see. None
            means the system's temporary folder.
        stopwatch: started before the first segment is requested.
        tick: called in every turn of Tune's loop.

    Raises:
        UserError: the stopwatch cannot be started.
        RayDied: the local Ray has died; nothing that was reported is lost.
    """
    folder = Path(tempfile.mkdtemp(prefix="tune-", dir=scratch))
    try:
        with running(shares):
            if stopwatch is not None:
                stopwatch.start(shares)
            tuner = tune.Tuner(
                tune.with_resources(SegmentTrainable, {"cpu": shares.cpus, "gpu": shares.gpus}),
                tune_config=tune.TuneConfig(
                    search_alg=SegmentSearcher(source),
                    num_samples=-1,
                    max_concurrent_trials=shares.concurrency,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=str(folder.resolve()),
                    name="segments",
                    verbose=0,
                    callbacks=[_TickCallback(tick)],
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            )
            tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
