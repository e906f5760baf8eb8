"""Views of a search in MLflow, made by the driver alone; they can be made anew from the study."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from detector.errors import UserError
from trials.record import Status, TrialRecord


class Tracker(Protocol):
    """Takes down what a search tells it; may be called again with the same facts."""

    def trial(self, record: TrialRecord, title: str, params: Mapping[str, object]) -> None:
        """A trial's new state. `title` tells the design, `params` the choices that matter."""

    def summary(self, metrics: Mapping[str, float], files: Sequence[Path], ended: bool) -> None:
        """The study's own numbers and artifacts."""


class NullTracker:
    """Takes down nothing."""

    def trial(self, record, title, params):
        pass

    def summary(self, metrics, files, ended):
        pass


class MlflowTracker:
    """One experiment a space, a parent run a study, a child run a trial.

    Args:
        uri: MLflow store or server.
        experiment: the space's name.
        study: the parent run's name.
        tags: of the parent run.

    Raises:
        UserError: the store cannot be used.
    """

    def __init__(self, uri: str, experiment: str, study: str, tags: Mapping[str, object]):
        self._client = client(uri)
        self._experiment = experiment_id(self._client, experiment)
        self._parent = self._find_parent(study)
        if self._parent is None:
            self._parent = self._client.create_run(
                self._experiment, run_name=study,
                tags={"study": study, "role": "study"} | _texts(tags)).info.run_id
        self._runs, self._logged = {}, {}
        for run in self._children():
            number = int(run.data.tags["trial"])
            self._runs[number] = run.info.run_id
            self._logged[number] = int(run.data.tags.get("epochs_logged", 0))

    def trial(self, record: TrialRecord, title: str, params: Mapping[str, object]) -> None:
        from mlflow.entities import Metric

        number, first = record.number, record.number not in self._runs
        if first:
            self._runs[number] = self._client.create_run(
                self._experiment, run_name=title, start_time=_milliseconds(record.started),
                tags={"mlflow.parentRunId": self._parent, "role": "trial",
                      "trial": str(number), "design": record.design}).info.run_id
        stamp, metrics = _milliseconds(record.ended), []
        for epoch in record.epochs[self._logged.get(number, 0):]:
            values = {f"loss_{name}": value for name, value in epoch.losses.items()}
            if epoch.ap is not None:
                values |= {f"ap_{name}": value for name, value in epoch.ap.items()}
                values["accuracy_score"] = epoch.accuracy_score
                values["score"] = record.speed_score + 2 * epoch.accuracy_score
            metrics += [Metric(name, value, stamp, epoch.epoch) for name, value in values.items()]
        if first:
            cost = record.cost
            values = {"params": cost.params, "macs": cost.macs, "speed_score": record.speed_score}
            if cost.latency_ms is not None:
                values["latency_ms"] = cost.latency_ms
            metrics += [Metric(name, value, stamp, 0) for name, value in values.items()]
        tags = {"status": record.status.value, "rung": record.rung, "source": record.source,
                "epochs_logged": len(record.epochs), "retries": record.retries}
        if record.reason:
            tags["reason"] = record.reason
        _log(self._client, self._runs[number], metrics, tags, params if first else {})
        self._logged[number] = len(record.epochs)
        if record.status.ended:
            state = "FAILED" if record.status is Status.FAILED else "FINISHED"
            self._client.set_terminated(self._runs[number], state, _milliseconds(record.ended))

    def summary(self, metrics: Mapping[str, float], files: Sequence[Path], ended: bool) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._parent, name, value)
        for path in files:
            self._client.log_artifact(self._parent, str(path))
        if ended:
            self._client.set_terminated(self._parent, "FINISHED")

    def _find_parent(self, study: str) -> str | None:
        runs = self._client.search_runs(
            [self._experiment], f"tags.study = '{study}' and tags.role = 'study'", max_results=1)
        return runs[0].info.run_id if runs else None

    def _children(self):
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`mlflow.parentRunId` = '{self._parent}'",
                max_results=1000, page_token=token)
            yield from (run for run in page if "trial" in run.data.tags)
            token = page.token
            if not token:
                return


def log_run(uri: str, experiment: str, name: str, *, tags: Mapping[str, object],
            params: Mapping[str, object], metrics: Sequence[tuple[str, float, int]],
            files: Sequence[Path] = ()) -> str:
    """One finished run that stands by itself (a retrain, an evaluation).

    Args:
        metrics: (name, value, step).

    Returns:
        The run's id.

    Raises:
        UserError: the store cannot be used.
    """
    from mlflow.entities import Metric

    store = client(uri)
    run = store.create_run(experiment_id(store, experiment), run_name=name).info.run_id
    stamp = _milliseconds(None)
    points = [Metric(key, value, stamp, step) for key, value, step in metrics]
    _log(store, run, points, tags, params)
    for path in files:
        store.log_artifact(run, str(path))
    store.set_terminated(run, "FINISHED")
    return run


def _log(store, run: str, points: list, tags: Mapping[str, object],
         params: Mapping[str, object]) -> None:
    """All of a run in as few calls as MLflow's limits allow (1,000 entries, 100 of them params)."""
    from mlflow.entities import Param, RunTag

    texts = [Param(key, value) for key, value in _texts(params).items()]
    labels = [RunTag(key, value) for key, value in _texts(tags).items()]
    for start in range(0, max(len(points), 1), 800):
        first = start == 0
        store.log_batch(run, metrics=points[start:start + 800], params=texts if first else [],
                        tags=labels if first else [])


def client(uri: str):
    """An MLflow client of a store or server, checked.

    Raises:
        UserError: it does not answer, or is of another version.
    """
    import logging

    import mlflow

    for name in ("mlflow", "alembic"):  # they tell every table they make
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        made = mlflow.MlflowClient(tracking_uri=uri)
        made.search_experiments(max_results=1)
    except Exception as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"--tracking-uri {uri}: MLflow cannot use it ({line}); name another store "
                        "or server, or none") from error
    return made


def experiment_id(store, name: str) -> str:
    """The experiment's id; made where it is not there yet."""
    found = store.get_experiment_by_name(name)
    return found.experiment_id if found else store.create_experiment(name)


def _milliseconds(seconds: float | None) -> int:
    return int(1000 * (time.time() if seconds is None else seconds))


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value)[:500] for key, value in values.items()}
