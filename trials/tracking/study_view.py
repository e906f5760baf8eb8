"""A study in MLflow: an experiment for its space, a parent run, a child run for each trial, and a
run that is its Pareto front."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detector.base.errors import UserError
from trials.record import Status, TrialRecord, mean_ap
from trials.tracking.mlflow_store import (
    MetricPoint,
    as_text,
    as_texts,
    cause,
    client,
    experiment_id,
    find_runs,
    log,
    milliseconds,
    translated_errors,
)
from trials.tracking.saved_views import COLORS, RUN_COLOR
from trials.tracking.tracker import ProgressPoint, TrackerUnavailable, TrialView

SYSTEM_METRICS_INTERVAL_S = 15
"""Seconds between two samples of processor, memory, disk and network."""
_STATES = {Status.FAILED: "FAILED"}


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The images that a run was trained on."""

    name: str
    fingerprint: str
    source: str
    """A folder, or synthetic."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Number in each part of the data."""


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What the parent run says of its study."""

    name: str
    space: str
    """The experiment's name."""
    created: float
    """Unix seconds; identifies the study, together with its name."""
    tags: Mapping[str, object]
    data: DataFacts | None = None


class MlflowView:
    """A study in MLflow, see `trials.tracking.tracker.View`. Skips what MLflow has already.

    Args:
        uri: MLflow store or server.
        live: the search is running: so is its run, with system metrics where these are wanted.

    Raises:
        UserError: the store cannot be used, or the experiment was deleted.
    """

    def __init__(self, uri: str, facts: StudyFacts, live: bool = True):
        self._client = client(uri, facts.space)
        self._facts, self._uri, self._monitor = facts, uri, None
        self._ended: float | None = None  # end of the last trial
        self._front: dict[int, TrialRecord] = {}
        try:
            with translated_errors():
                self._experiment = experiment_id(self._client, facts.space)
                self._parent, self._points_logged, self._color = self._open_parent(live)
                self._runs: dict[int, _Run] = {}
                for run in self._children():
                    self._runs[int(run.data.tags["trial"])] = _Run(
                        run.info.run_id, dict(run.data.tags), run.info.status
                    )
                if live:
                    self._monitor = monitor_system(uri, self._parent)
        except TrackerUnavailable as error:
            raise UserError(f"--tracking-uri {uri}: {cause(error, uri)}") from error

    @staticmethod
    def _translates_errors(method):
        """Errors of the store become `TrackerUnavailable`, and the monitor's thread ends."""

        @functools.wraps(method)
        def wrapper(self, *args):
            try:
                with translated_errors():
                    return method(self, *args)
            except TrackerUnavailable:
                if self._monitor is not None:  # in a thread: `finish` calls the store once more
                    threading.Thread(target=self._monitor.finish, daemon=True).start()
                raise

        return wrapper

    @_translates_errors
    def log_trial(self, view: TrialView) -> None:
        record, known = view.record, self._runs.get(view.record.number)
        if view.on_front:
            self._front[record.number] = record
        else:
            self._front.pop(record.number, None)
        self._ended = max(self._ended or 0.0, record.ended or 0.0) or None
        logged = int(known.tags.get("epochs_logged", 0)) if known else 0
        tags = {
            "status": record.status.value,
            "rung": record.rung,
            "source": record.source,
            "on_front": view.on_front,
            "retries": record.retries,
            "epochs_logged": max(logged, len(record.epochs)),
            "reason": record.reason or "",
        }
        state = _STATES.get(record.status, "FINISHED") if record.status.ended else "RUNNING"
        if known is None:
            known = self._runs[record.number] = _Run(
                self._client.create_run(
                    self._experiment,
                    run_name=view.title,
                    start_time=milliseconds(record.started),
                    tags={
                        "mlflow.parentRunId": self._parent,
                        "role": "trial",
                        "study": self._facts.name,
                        "trial": str(record.number),
                        "design": record.design,
                        RUN_COLOR: self._color,
                    },
                ).info.run_id
            )
        changed = {
            key: text for key, text in as_texts(tags).items() if known.tags.get(key, "") != text
        }
        if changed:
            log(
                self._client,
                known.id,
                _points(record, logged),
                tags=changed,
                params={} if "status" in known.tags else view.params,
            )
            known.tags |= changed
        if known.state != state and state == "RUNNING":  # resumed by a longer search
            self._client.update_run(known.id, status=state)
        elif known.state != state:
            self._client.set_terminated(known.id, state, milliseconds(record.training_ended))
        known.state = state

    @_translates_errors
    def log_progress(self, points: Sequence[ProgressPoint]) -> None:
        new = points[self._points_logged :]
        if new:
            log(
                self._client,
                self._parent,
                [
                    (name, value, point.time, point.step)
                    for point in new
                    for name, value in point.values.items()
                ],
                tags={"course_logged": len(points)},
            )
            self._points_logged = len(points)

    @_translates_errors
    def log_files(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self._client.log_artifact(self._parent, str(path))

    @_translates_errors
    def close(self, ended: bool) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        self._log_front()
        self._client.set_terminated(
            self._parent, "FINISHED" if ended else "KILLED", milliseconds(self._ended)
        )

    def _log_front(self) -> None:
        """Log the Pareto front as a run of its own, a step a design, by increasing MACs.

        Metrics of a run cannot be taken back, so a front that has changed is a new run, and the old
        one is deleted.
        """
        front = sorted(self._front.values(), key=lambda record: record.cost.macs)
        points = [
            (name, value, record.ended, step)
            for step, record in enumerate(front)
            for name, value in _front_values(record).items()
        ]
        state = hashlib.sha256(repr(points).encode()).hexdigest()[:12]
        own = {"role": "study front", "front_of": self._parent}
        for run in find_runs(self._client, self._experiment, own):
            if run.data.tags.get("state") == state:
                return
            self._client.delete_run(run.info.run_id)
        if points:
            run = self._client.create_run(
                self._experiment,
                run_name=f"{self._facts.name} front",
                start_time=milliseconds(self._facts.created),
                tags={**own, "study": self._facts.name, "state": state, RUN_COLOR: self._color},
            )
            log(self._client, run.info.run_id, points)
            self._client.set_terminated(run.info.run_id, "FINISHED", milliseconds(self._ended))

    def _open_parent(self, live: bool) -> tuple[str, int, str]:
        """The parent run's id, how many progress points it has, and its colour."""
        facts = self._facts
        own = {"study": facts.name, "role": "study", "begun": f"{facts.created:.3f}"}
        run = next(
            find_runs(
                self._client,
                self._experiment,
                own,
            ),
            None,
        )
        color = run.data.tags.get(RUN_COLOR) if run else None
        if color is None:
            studies = find_runs(self._client, self._experiment, {"role": "study"})
            color = COLORS[sum(1 for study in studies if study is not run) % len(COLORS)]
        if run is None:
            run = self._client.create_run(
                self._experiment,
                run_name=facts.name,
                start_time=milliseconds(facts.created),
                tags=own | as_texts(facts.tags) | {RUN_COLOR: color},
            )
        elif RUN_COLOR not in run.data.tags:
            self._client.set_tag(run.info.run_id, RUN_COLOR, color)
        if live:
            self._client.update_run(run.info.run_id, status="RUNNING")
        if facts.data is not None:
            log_data(self._client, run.info.run_id, facts.data)
        return run.info.run_id, int(run.data.tags.get("course_logged", 0)), color

    def _children(self):
        """The runs of the trials, one each. Duplicates are deleted: a request that timed out may
        have been carried out after its repetition."""
        seen = set()
        for run in find_runs(
            self._client, self._experiment, {"mlflow.parentRunId": self._parent, "role": "trial"}
        ):
            if run.data.tags["trial"] in seen:
                self._client.delete_run(run.info.run_id)
            else:
                seen.add(run.data.tags["trial"])
                yield run


@dataclass
class _Run:
    """The run of a trial, as MLflow has it."""

    id: str
    tags: dict[str, str] = field(default_factory=dict)
    state: str = "RUNNING"


def _points(record: TrialRecord, logged: int) -> list[MetricPoint]:
    """A trial's cost, and its epochs after the first `logged`, as metrics."""
    cost = record.cost
    costs: dict[str, float | None] = {
        "params": cost.params,
        "macs": cost.macs,
        "log10_macs": math.log10(max(cost.macs, 1)),
        "speed_score": record.speed_score,
        "latency_ms": cost.latency_ms,
    }
    points: list[MetricPoint] = [
        (name, value, record.started, 0) for name, value in costs.items() if value is not None
    ]
    scores = record.scores(since=logged)
    for epoch in record.epochs[logged:]:
        values = {f"loss_{name}": value for name, value in epoch.losses.items()}
        if epoch.ap is not None:
            values |= {f"ap_{name}": value for name, value in epoch.ap.items()}
            values["accuracy_score"] = mean_ap(epoch.ap)
            values["score"] = scores[epoch.epoch]
        at = record.started if epoch.ended is None else epoch.ended
        points += [(name, value, at, epoch.epoch) for name, value in values.items()]
    return points


def _front_values(record: TrialRecord) -> dict[str, float]:
    """A point of the front, as metrics."""
    assert record.accuracy_score is not None  # only completed trials are on a front
    values = {"pareto_accuracy": record.accuracy_score, "pareto_gmacs": record.cost.macs / 1e9}
    if record.cost.latency_ms is not None:
        values["pareto_latency_ms"] = record.cost.latency_ms
    return values


def log_data(store, run: str, data: DataFacts) -> None:
    """Log the images as the run's data set; idempotent."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    store.log_inputs(
        run,
        datasets=[
            DatasetInput(
                Dataset(
                    name=as_text(data.name),
                    digest=data.fingerprint,
                    source_type="local",
                    source=json.dumps({"uri": data.source}),
                    profile=json.dumps(dict(data.images)),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
        ],
    )


def monitor_system(uri: str, run: str):
    """Record system metrics of a run in a thread; call `finish` of the result at the end. None
    unless MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is set: their charts hide the others."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    monitor = SystemMetricsMonitor(
        run, sampling_interval=SYSTEM_METRICS_INTERVAL_S, resume_logging=True, tracking_uri=uri
    )
    monitor.start()
    return monitor
