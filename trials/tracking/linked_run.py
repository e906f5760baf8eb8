"""Runs beside the trials of a study in MLflow: a retrain or an evaluation, linked to its trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from trials.tracking.mlflow_store import (
    client,
    experiment_id,
    find_runs,
    log,
    milliseconds,
    reaching,
)
from trials.tracking.study_view import DataFacts, log_data, watch
from trials.tracking.tracker import Away, Patience, tell


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What such a run is."""

    role: str
    """retrain or evaluate."""
    key: str
    """Tells it from others of its role: the same retrain again is the same run."""
    title: str
    space: str | None
    """The experiment; none: "presets"."""
    study: str | None
    design: str
    """`arch_hash`, by which its trial is found."""
    tags: Mapping[str, object] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    data: DataFacts | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """How it ended."""

    metrics: Mapping[str, float]
    step: int
    time: float
    """Unix seconds."""
    files: Sequence[Path] = ()
    linked: Mapping[str, object] = field(default_factory=dict)
    """Tags for the trial's run, beside its role's with the run's id."""


class LinkedRun(AbstractContextManager):
    """A run that lasts; MLflow may be away meanwhile.

    Args:
        uri: MLflow store or server.
        doing: what goes on meanwhile, such as "the retrain".
        again: the command that tells MLflow what it missed.
        live: metrics of the system are taken while it lasts.

    Raises:
        UserError: the store cannot be used from the start.
    """

    def __init__(self, uri: str, facts: RunFacts, *, doing: str, again: str, live: bool = True):
        self._uri, self._facts, self._again, self._live = uri, facts, again, live
        self._client = client(uri)
        self._patience = Patience(doing)
        self._monitor = None
        self._points: list[tuple[str, float, float, int]] = []
        self._told = 0
        """Epochs that MLflow has, or will have with `_points`."""
        self.id: str | None = None
        """The run's id; none while MLflow does not answer."""
        self.finished = False
        """Whether MLflow has it from its beginning to its end already."""
        self._ask(self._open)

    def epoch(self, number: int, values: Mapping[str, float], at: float) -> None:
        """Metrics after an epoch, 1-based; one that MLflow has already is left out."""
        if number > self._told:
            self._points += [(name, value, at, number) for name, value in values.items()]
            self._told = number
        self._ask(self._send)

    def end(self, result: Result, after: Callable[[str], None] = lambda run: None) -> bool:
        """Whether MLflow has all of it. `after` is called with the run's id before it ends."""

        def told() -> None:
            self._send()
            values = [
                (name, value, result.time, result.step)
                for name, value in result.metrics.items()
                if value is not None
            ]
            log(self._client, self.id, values)
            for path in result.files:
                self._client.log_artifact(self.id, str(path))
            trial = self._client.get_run(self.id).data.tags.get("trial_run")
            if trial:
                log(self._client, trial, tags={self._facts.role: self.id} | dict(result.linked))
            after(self.id)
            self._client.set_terminated(self.id, "FINISHED", milliseconds(result.time))
            self.finished = True

        if not self._ask(told, last=True):
            tell(f"note: MLflow lacks the {self._facts.role}; when it is back: {self._again}")
        return self.finished

    def __exit__(self, kind, *error) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        if not self.finished and self.id is not None:
            state = "KILLED" if kind is KeyboardInterrupt else "FAILED"
            self._ask(lambda: self._client.set_terminated(self.id, state), last=True)

    def _ask(self, question: Callable[[], None], last: bool = False) -> bool:
        """Whether MLflow answered."""
        if not (last or self._patience.asks):
            return False
        try:
            with reaching():
                if self.id is None and question != self._open:
                    self._open()
                question()
        except Away as error:
            self._patience.failed(error)
            return False
        self._patience.answered()
        return True

    def _open(self) -> None:
        facts, store = self._facts, self._client
        experiment = experiment_id(store, facts.space or "presets")
        own = {"role": facts.role, "key": facts.key}
        found = next(find_runs(store, experiment, own), None)
        if found is None:
            trial, study = _linked(store, experiment, facts)
            parent = trial or study
            links = {"mlflow.parentRunId": parent} if parent else {}
            found = store.create_run(
                experiment,
                run_name=facts.title,
                tags=own | links | ({"trial_run": trial} if trial else {}),
            )
        run, tags = found.info.run_id, found.data.tags
        self.finished = found.info.status == "FINISHED" and not self._live
        self._told = max(self._told, int(tags.get("epochs_logged", 0)))
        log(
            store,
            run,
            tags={"design": facts.design, "study": facts.study or "none"} | dict(facts.tags),
            params=facts.params,
        )
        if facts.data is not None:
            log_data(store, run, facts.data)
        if self._live:
            store.update_run(run, status="RUNNING")
            self._monitor = watch(self._uri, run)
        self.id = run

    def _send(self) -> None:
        if self._points:
            log(self._client, self.id, self._points, tags={"epochs_logged": self._told})
            self._points = []


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
