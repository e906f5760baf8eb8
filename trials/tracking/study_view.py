"""A study in MLflow: an experiment for its space, a parent run, a child run for each trial."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detector.base.errors import UserError
from trials.record import Status, TrialRecord
from trials.tracking.mlflow_store import (
    as_texts,
    cause,
    client,
    experiment_id,
    find_runs,
    log,
    milliseconds,
    reaching,
)
from trials.tracking.tracker import Away, CoursePoint, TrialView

SAMPLED_EVERY = 15
"""Seconds between two looks at processor, memory, disk and network."""
_STATES = {Status.FAILED: "FAILED"}


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The images that a run learned from."""

    name: str
    fingerprint: str
    source: str
    """A folder, or synthetic."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Of each part."""


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What the parent run tells of its study."""

    name: str
    space: str
    """The experiment's name."""
    created: float
    """Unix seconds; with the name it tells studies apart."""
    tags: Mapping[str, object]
    data: DataFacts | None = None


class MlflowView:
    """See `trials.tracking.tracker.View`. What MLflow has already is not told it again.

    Args:
        uri: MLflow store or server.
        live: the study is being searched: its run shows as running, with system metrics.

    Raises:
        UserError: the store cannot be used.
    """

    def __init__(self, uri: str, facts: StudyFacts, live: bool = True):
        self._client = client(uri)
        self._facts, self._uri, self._monitor = facts, uri, None
        self._ended: float | None = None  # when the last trial did
        try:
            with reaching():
                self._experiment = experiment_id(self._client, facts.space)
                self._parent, self._course_logged = self._open_parent(live)
                self._runs: dict[int, _Run] = {}
                for run in self._children():
                    self._runs[int(run.data.tags["trial"])] = _Run(
                        run.info.run_id, dict(run.data.tags), run.info.status
                    )
                if live:
                    self._monitor = watch(uri, self._parent)
        except Away as error:
            raise UserError(f"--tracking-uri {uri}: {cause(error, uri)}") from error

    @staticmethod
    def _reaches(method):
        """Faults of the store end as `Away`, and nothing of this view goes on behind one's back."""

        @functools.wraps(method)
        def reached(self, *args):
            try:
                with reaching():
                    return method(self, *args)
            except Away:
                if self._monitor is not None:  # ends in a thread: it asks the store once more
                    threading.Thread(target=self._monitor.finish, daemon=True).start()
                raise

        return reached

    @_reaches
    def trial(self, view: TrialView) -> None:
        record, known = view.record, self._runs.get(view.record.number)
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
                    },
                ).info.run_id
            )
        new = {key: text for key, text in as_texts(tags).items() if known.tags.get(key, "") != text}
        if new:
            log(
                self._client,
                known.id,
                _points(record, logged),
                tags=new,
                params={} if "status" in known.tags else view.params,
            )
            known.tags |= new
        if known.state != state and state == "RUNNING":  # a longer search took it up again
            self._client.update_run(known.id, status=state)
        elif known.state != state:
            self._client.set_terminated(known.id, state, milliseconds(record.ended))
        known.state = state

    @_reaches
    def course(self, points: Sequence[CoursePoint]) -> None:
        new = points[self._course_logged :]
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
            self._course_logged = len(points)

    @_reaches
    def files(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self._client.log_artifact(self._parent, str(path))

    @_reaches
    def close(self, ended: bool) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        self._client.set_terminated(
            self._parent, "FINISHED" if ended else "KILLED", milliseconds(self._ended)
        )

    def _open_parent(self, live: bool) -> tuple[str, int]:
        """The parent run's id, and how many points of the study's course it has."""
        facts, begun = self._facts, f"{self._facts.created:.3f}"
        found = next(
            find_runs(
                self._client,
                self._experiment,
                {"study": facts.name, "role": "study", "begun": begun},
            ),
            None,
        )
        if found is None:
            found = self._client.create_run(
                self._experiment,
                run_name=facts.name,
                start_time=milliseconds(facts.created),
                tags={"study": facts.name, "role": "study", "begun": begun} | as_texts(facts.tags),
            )
        elif live:
            self._client.update_run(found.info.run_id, status="RUNNING")
        if facts.data is not None:
            log_data(self._client, found.info.run_id, facts.data)
        return found.info.run_id, int(found.data.tags.get("course_logged", 0))

    def _children(self):
        """The trials' runs, one each: a request that timed out may have been carried out after
        the one that repeated it."""
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
    """What MLflow has of a trial."""

    id: str
    tags: dict[str, str] = field(default_factory=dict)
    state: str = "RUNNING"


def _points(record: TrialRecord, logged: int) -> list[tuple[str, float, float | None, int]]:
    """A trial's cost, and its epochs after the first `logged`, as metrics."""
    cost = record.cost
    values = {
        "params": cost.params,
        "macs": cost.macs,
        "speed_score": record.speed_score,
        "latency_ms": cost.latency_ms,
    }
    points = [
        (name, value, record.started, 0) for name, value in values.items() if value is not None
    ]
    for epoch in record.epochs[logged:]:
        values = {f"loss_{name}": value for name, value in epoch.losses.items()}
        if epoch.ap is not None:
            values |= {f"ap_{name}": value for name, value in epoch.ap.items()}
            values["accuracy_score"] = epoch.accuracy_score
            values["score"] = record.speed_score + 2 * epoch.accuracy_score
        at = record.started if epoch.ended is None else epoch.ended
        points += [(name, value, at, epoch.epoch) for name, value in values.items()]
    return points


def log_data(store, run: str, data: DataFacts) -> None:
    """The images as the run's data set; once however often it is called."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    store.log_inputs(
        run,
        datasets=[
            DatasetInput(
                Dataset(
                    name=data.name,
                    digest=data.fingerprint,
                    source_type="local",
                    source=json.dumps({"uri": data.source}),
                    profile=json.dumps(dict(data.images)),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
        ],
    )


def watch(uri: str, run: str):
    """Started system metrics of a run, in a thread; call `finish` in the end."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(
        run, sampling_interval=SAMPLED_EVERY, resume_logging=True, tracking_uri=uri
    )
    monitor.start()
    return monitor
