"""Other runs of a study in MLflow: retrains and evaluations, linked to their trials."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from trials.tracking.mlflow_store import (
    NO_SPACE,
    MetricPoint,
    as_text,
    as_texts,
    client,
    experiment_id,
    find_runs,
    log,
    milliseconds,
    translated_errors,
)
from trials.tracking.study_view import DataFacts, log_data, monitor_system
from trials.tracking.tracker import RetryBackoff, TrackerUnavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the run is."""

    role: str
    """retrain or evaluate."""
    key: str
    """Identifies it among the runs of its role: the same retrain again is the same run."""
    title: str
    space: str | None
    """Name of the experiment; None means NO_SPACE."""
    study: str | None
    design: str
    """`arch_hash`, which identifies its trial."""
    tags: Mapping[str, object] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    data: DataFacts | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """The results, and when they were complete."""

    metrics: Mapping[str, float]
    step: int
    time: float
    """Unix seconds."""
    files: Sequence[Path] = ()
    trial_tags: Mapping[str, object] = field(default_factory=dict)
    """Tags of the trial's run, besides the role → this run's id."""


class LinkedRun(AbstractContextManager):
    """A run with progress; MLflow may be unavailable for a while.

    Args:
        uri: MLflow store or server.
        activity: what continues meanwhile, such as "the retrain".
        sync_command: the command that sends MLflow what it missed.
        live: record system metrics during the run.

    Raises:
        UserError: the store cannot be used from the start, or its experiment was deleted.
    """

    def __init__(
        self, uri: str, facts: RunFacts, *, activity: str, sync_command: str, live: bool = True
    ):
        self._uri, self._facts, self._sync_command, self._live = uri, facts, sync_command, live
        self._experiment = facts.space or NO_SPACE
        self._client = client(uri, self._experiment)
        self._backoff = RetryBackoff(activity)
        self._monitor = None
        self._points: list[MetricPoint] = []
        self._epochs_logged = 0
        """Epochs that MLflow has, or will have with `_points`."""
        self.id: str | None = None
        """The run's id; None as long as MLflow does not answer."""
        self.finished = False
        """Whether MLflow has the complete run already."""
        self._attempt(lambda run: None)

    def log_epoch(self, number: int, values: Mapping[str, float], at: float) -> None:
        """Metrics of an epoch, 1-based; skipped if MLflow has it already."""
        if number > self._epochs_logged:
            self._points += [(name, value, at, number) for name, value in values.items()]
            self._epochs_logged = number
        self._attempt(self._send)

    def finish(self, result: Result, after: Callable[[str], None] = lambda run: None) -> bool:
        """Log the results and end the run.

        Args:
            after: called with the run's id before it ends.

        Returns:
            Whether MLflow has the complete run.
        """

        def send(run: str) -> None:
            self._send(run)
            values: list[MetricPoint] = [
                (name, value, result.time, result.step)
                for name, value in result.metrics.items()
                if value is not None
            ]
            log(self._client, run, values)
            for path in result.files:
                self._client.log_artifact(run, str(path))
            trial = self._client.get_run(run).data.tags.get("trial_run")
            if trial:
                log(self._client, trial, tags={self._facts.role: run} | dict(result.trial_tags))
            after(run)
            self._client.set_terminated(run, "FINISHED", milliseconds(result.time))
            self.finished = True

        complete = self._attempt(send, last=True)
        if not complete:
            logger.warning(
                "note: MLflow lacks the %s; when it is back: %s",
                self._facts.role,
                self._sync_command,
            )
        return complete

    def __exit__(self, kind, *error) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        if not self.finished and self.id is not None:
            state = "KILLED" if kind is KeyboardInterrupt else "FAILED"
            self._attempt(lambda run: self._client.set_terminated(run, state), last=True)

    def _attempt(self, request: Callable[[str], None], last: bool = False) -> bool:
        """Open the run if that has not succeeded yet, and call `request` with its id; returns
        whether MLflow answered."""
        if not (last or self._backoff.due):
            return False
        try:
            with translated_errors():
                if self.id is None:
                    self.id = self._open()
                request(self.id)
        except TrackerUnavailable as error:
            self._backoff.failed(error)
            return False
        self._backoff.succeeded()
        return True

    def _open(self) -> str:
        """Find or create the run; returns its id."""
        facts, store = self._facts, self._client
        experiment = experiment_id(store, self._experiment)
        own = {"role": facts.role, "key": facts.key}
        existing = next(find_runs(store, experiment, own), None)
        if existing is None:
            trial, study = _linked(store, experiment, facts)
            parent = trial or study
            links = {"mlflow.parentRunId": parent} if parent else {}
            existing = store.create_run(
                experiment,
                run_name=as_text(facts.title),
                tags=own | links | ({"trial_run": trial} if trial else {}),
            )
        run, tags = existing.info.run_id, existing.data.tags
        self._epochs_logged = max(self._epochs_logged, int(tags.get("epochs_logged", 0)))
        params, changed = _new_and_changed(facts.params, existing.data)
        log(
            store,
            run,
            tags={**changed, "design": facts.design, "study": facts.study or "none", **facts.tags},
            params=params,
        )
        if facts.data is not None:
            log_data(store, run, facts.data)
        if self._live:
            store.update_run(run, status="RUNNING")
            self._monitor = monitor_system(self._uri, run)
        self.finished = existing.info.status == "FINISHED" and not self._live
        return run

    def _send(self, run: str) -> None:
        if self._points:
            log(self._client, run, self._points, tags={"epochs_logged": self._epochs_logged})
            self._points = []


def _new_and_changed(params: Mapping[str, object], logged) -> tuple[dict[str, str], dict[str, str]]:
    """The params that a run lacks; and those that it has with another value, such as another path
    of the same weights: MLflow never changes a param, so tags of the same names have the last one.

    Args:
        logged: the run's data, with its `params` and `tags`.
    """
    texts = as_texts(params)
    new = {key: text for key, text in texts.items() if key not in logged.params}
    changed = {
        key: text
        for key, text in texts.items()
        if logged.params.get(key, text) != text or key in logged.tags
    }
    return new, changed


def _linked(store, experiment: str, facts: RunFacts) -> tuple[str | None, str | None]:
    """Ids of the runs of the design's trial and of the study."""
    if facts.study is None:
        return None, None
    study = next(find_runs(store, experiment, {"study": facts.study, "role": "study"}), None)
    if study is None:
        return None, None
    trial = next(
        find_runs(
            store,
            experiment,
            {"mlflow.parentRunId": study.info.run_id, "role": "trial", "design": facts.design},
        ),
        None,
    )
    return trial and trial.info.run_id, study.info.run_id
