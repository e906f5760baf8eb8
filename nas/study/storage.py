"""A study on disk: what it is (study.json, written once) and its records (Optuna's SQLite storage).

The storage is the only source of truth of a search and has one writer, the driver. Everything else
(MLflow, tables, figures) is a view that can be rebuilt from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.database import reported_epochs, stored_trials
from detector.base.errors import UserError, disk_full, first_line
from detector.base.files import exists
from nas.samplers.optuna_adapter import TrialStorage, set_metric_names
from trials.folders import (
    DATABASE,
    MANIFEST,
    checked_name,
    database_url,
    find_study,
    read_manifest,
)
from trials.names import describe
from trials.plugins import check_plugins
from trials.record import (
    RECORD_ATTRIBUTE,
    Status,
    TrialRecord,
    records_from_json,
    records_to_json,
)
from trials.stored import Manifest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LOCK = ".lock"
"""Locked by the study's only writer."""
DATABASE_TIMEOUT_S = 100
"""Wait for a lock that a reader holds; SQLite's default of 5 s is too short on a busy disk."""


class Study:
    """A study's folder. Use `create` or `open` to get one."""

    def __init__(self, folder: Path, manifest: Manifest, *, new: bool = False):
        import optuna

        self.folder = folder
        self.name = folder.name
        self.manifest = manifest
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = folder / DATABASE
        if not new and not exists(path):  # SQLite would create it
            raise UserError(f"{path}: does not exist; restore it from a copy, or start a new study")
        try:
            storage = optuna.storages.RDBStorage(
                database_url(path),
                engine_kwargs={"connect_args": {"timeout": DATABASE_TIMEOUT_S}},
            )
            if new:
                self._optuna = optuna.create_study(
                    study_name=manifest.name,
                    storage=storage,
                    direction="maximize",
                    load_if_exists=True,  # left by a process that was killed
                )
                set_metric_names(self._optuna, ["score"])
                for name, value in _attributes(manifest).items():
                    self._optuna.set_user_attr(name, value)
            else:
                self._optuna = optuna.load_study(study_name=manifest.name, storage=storage)
            self._storage = TrialStorage(self._optuna)
            self._parsed: dict[tuple[int, int], list[TrialRecord]] = {}  # by trial and text's hash
            self._read()
        except UserError:
            raise
        except Exception as error:
            if disk_full(error):
                raise UserError(
                    f"{path}: cannot be written, the disk is full; free some space, "
                    "then run the same command again"
                ) from error
            raise UserError(
                f"{path}: this is not a readable study ({first_line(error)}); restore "
                "the file from a copy, or start a new study"
            ) from error

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        name: str,
        manifest: Manifest,
        prepare: Callable[[Path], None] = lambda folder: None,
    ) -> Study:
        """A new, empty study.

        Args:
            prepare: called with its folder before anybody else can open the study.

        Raises:
            UserError: the study exists or is being created, or the folder cannot be written.
        """
        folder = runs_dir / checked_name(name)
        if exists(folder / MANIFEST):
            raise study_exists(runs_dir, name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be created ({error.strerror}); choose another --runs-dir"
            ) from error
        with _locked(folder):
            if exists(folder / MANIFEST):  # another process was faster
                raise study_exists(runs_dir, name)
            prepare(folder)
            study = cls(folder, manifest, new=True)
            manifest.write(folder / MANIFEST)  # last: without it there is no study
        return study

    @classmethod
    def open(cls, runs_dir: Path, name: str) -> Study:
        """An existing study; it may be read-only.

        Raises:
            UserError: there is no such study (the message lists the existing ones), or it is
                damaged.
        """
        folder = find_study(runs_dir, name)
        check_plugins(folder)
        return cls(folder, read_manifest(folder))

    @property
    def records(self) -> list[TrialRecord]:
        """All records, by number."""
        return list(self._records.values())  # in insertion order

    def add(self, record: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> None:
        """Store a new record; its number must be the next one."""
        assert record.number == len(self._records), (record.number, len(self._records))
        self._create(record, distributions)

    def add_infeasible(
        self,
        records: Sequence[TrialRecord],
        distributions: Sequence[Mapping[str, BaseDistribution]],
    ) -> None:
        """Store new infeasible records, whose numbers must be the next ones: all or none, in the
        time of one.

        Args:
            distributions: those of the parameters of each record.
        """
        numbers = [record.number for record in records]
        assert numbers == list(range(len(self._records), len(self._records) + len(records)))
        trials = [_frozen(*pair) for pair in zip(records, distributions, strict=True)]
        trial_ids = self._storage.create_failed_trials(trials)
        for record, trial_id in zip(records, trial_ids, strict=True):
            self._index(record, trial_id, finished=True)

    def put(self, record: TrialRecord) -> None:
        """Store the new state of a record."""
        previous = self._records[record.number]
        if record.number in self._finished:  # finished Optuna trials are immutable: add a new one
            trial = self._storage.get_trial(self._trial_ids[record.number])
            self._create(record, trial.distributions)
            return
        trial_id = self._trial_ids[record.number]
        self._storage.set_trial_system_attr(trial_id, RECORD_ATTRIBUTE, records_to_json(record))
        self._index(record, trial_id, finished=False)
        self._update_optuna(record, record.scores(since=len(previous.epochs)))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the study's only writer for the duration of the block.

        Reads what another writer has stored since `open`, and completes what a writer that was
        killed did not pass on to Optuna.

        Raises:
            UserError: another process is writing to the study, or it is read-only.
        """
        if not os.access(self.folder / DATABASE, os.W_OK):
            raise _read_only(self.folder)
        with _locked(self.folder):
            self._read()
            reported = reported_epochs(self.folder / DATABASE)
            for record in self.records:
                if record.number not in self._finished:
                    epochs = reported.get(self._trial_ids[record.number], set())
                    missing = {e: s for e, s in record.scores().items() if e not in epochs}
                    self._update_optuna(record, missing)
            yield

    def _read(self) -> None:
        """Read all records from the storage; those that have not changed stay the same objects."""
        self._trial_ids: dict[int, int] = {}
        self._finished: set[int] = set()
        self._records: dict[int, TrialRecord] = {}
        parsed, self._parsed = self._parsed, {}
        for trial in stored_trials(self.folder / DATABASE):
            key = trial.trial_id, hash(trial.text)
            self._parsed[key] = parsed.get(key) or records_from_json(trial.text)
            for record in self._parsed[key]:
                # A trial resumed after its end is listed twice: the later record counts.
                self._index(record, trial.trial_id, finished=trial.finished)

    def _create(self, record: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> None:
        trial_id = self._storage.create_new_trial(_frozen(record, distributions))
        self._index(record, trial_id, finished=record.status.ended)

    def _update_optuna(self, record: TrialRecord, scores: Mapping[int, float]) -> None:
        """Update what Optuna's own tools show of a stored record: new scores by epoch, its end."""
        trial_id = self._trial_ids[record.number]
        for epoch, score in scores.items():
            self._storage.set_trial_intermediate_value(trial_id, epoch, score)
        if record.status.ended:
            for name, attribute in _outcome(record).items():
                self._storage.set_trial_user_attr(trial_id, name, attribute)
            value = _value(record)
            self._storage.set_trial_state_values(
                trial_id,
                _state(record),
                None if value is None else [value],
                _local_time(record.training_ended),
            )
            self._finished.add(record.number)

    def _index(self, record: TrialRecord, trial_id: int, *, finished: bool) -> None:
        """Keep a record's latest state in memory, with the Optuna trial that stores it."""
        self._records[record.number] = record
        self._trial_ids[record.number] = trial_id
        (self._finished.add if finished else self._finished.discard)(record.number)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a study's folder.

    Raises:
        UserError: another process holds it, or the folder is read-only.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(open(folder / LOCK, "wb"))
        except OSError as error:
            raise _read_only(folder) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"study {folder.name} is in use by another process, which searches or syncs it; "
                "wait for it, or choose another --study"
            ) from error
        yield


def _read_only(folder: Path) -> UserError:
    """The error for a study that this user may read, but not change."""
    copy = shlex.join(["cp", "-r", str(folder), "copies/"])
    return UserError(
        f"{folder}: read-only for this user, so nothing can be added to the study; copy it by "
        f"mkdir -p copies && {copy} and give --runs-dir copies (analysis.report, analysis.choose "
        "and nas.evaluate can read the original)"
    )


def _attributes(manifest: Manifest) -> dict[str, str | int]:
    """What Optuna's own tools show of a study."""
    return {
        "space": manifest.space,
        "sampler": manifest.sampler,
        "scheduler": manifest.scheduler,
        "proxies": manifest.proxies,
        "seed": manifest.seed,
        "data": f"{manifest.data_name} {manifest.data_fingerprint}",
        "score": str(manifest.objective),
    }


def _frozen(record: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A record as an Optuna trial, which is immutable if it has ended. Its user attributes are what
    Optuna's own tools show; the record is a system attribute, which they do not."""
    from optuna.trial import create_trial

    attributes = {
        "trial": record.number,  # not Optuna's number once a trial was resumed after its end
        "design": describe(record.detector),
        "params": record.cost.params,
        "macs": record.cost.macs,
        "speed_score": record.speed_score,
    }
    trial = create_trial(
        state=_state(record),
        value=_value(record),
        params={name: record.params[name] for name in distributions},
        distributions=dict(distributions),
        user_attrs=attributes | (_outcome(record) if record.status.ended else {}),
        system_attrs={RECORD_ATTRIBUTE: records_to_json(record)},
        intermediate_values=record.scores(),
    )
    trial.datetime_start = _local_time(record.started) or trial.datetime_start
    if record.status.ended:
        trial.datetime_complete = _local_time(record.training_ended) or trial.datetime_complete
    return trial


def _outcome(record: TrialRecord) -> dict[str, str | float]:
    """What Optuna's own tools show of a trial that has ended, besides its value."""
    outcome: dict[str, str | float] = {"status": record.status.value}
    if record.accuracy_score is not None:
        outcome["accuracy_score"] = record.accuracy_score
    if record.reason is not None:
        outcome["reason"] = record.reason
    return outcome


def _local_time(seconds: float | None) -> datetime | None:
    """Unix seconds as Optuna has them: as local time."""
    return None if seconds is None else datetime.fromtimestamp(seconds)


def _state(record: TrialRecord):
    """Optuna's state for a record's status."""
    from optuna.trial import TrialState

    if not record.status.ended:
        return TrialState.RUNNING
    return {Status.COMPLETED: TrialState.COMPLETE, Status.PRUNED: TrialState.PRUNED}.get(
        record.status, TrialState.FAIL
    )


def _value(record: TrialRecord) -> float | None:
    """The value that Optuna maximises; None unless the trial is completed."""
    return record.score if record.status is Status.COMPLETED else None


def study_exists(runs_dir: Path, name: str) -> UserError:
    """The error for a new study with the name of an existing one."""
    return UserError(
        f"study {name} exists in {runs_dir}; add --resume to resume it, or choose another --study"
    )
