"""A study on disk: what it is (study.json, written once) and its records (Optuna's sqlite).

The storage is the truth of a search and has one writer, the driver. Everything else (MLflow,
tables, figures) is a view that can be made anew from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from detector.cli import write_text
from detector.errors import UserError
from trials.folders import (
    DATABASE,
    MANIFEST,
    checked_name,
    find_study,
    first_line,
    new_name,
    newest,
    read_manifest,
)
from trials.record import RECORD_ATTRIBUTE, Status, TrialRecord

__all__ = ["Study", "already_there", "checked_name", "new_name", "newest", "read_manifest"]


class Study:
    """One study's folder. Make it with `create` or `open`."""

    def __init__(self, folder: Path, manifest: dict):
        import optuna

        self.folder = folder
        self.name = folder.name
        self.manifest = manifest
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = folder / DATABASE
        try:
            self._optuna = optuna.create_study(
                study_name=manifest["name"], storage=f"sqlite:///{path.resolve()}",
                direction="maximize", load_if_exists=True)
            self._storage = self._optuna._storage
            self._trial_ids: dict[int, int] = {}
            self._finished: set[int] = set()
            self._records: dict[int, TrialRecord] = {}
            for trial in self._optuna.get_trials(deepcopy=False):
                record = _record_of(trial)
                self._records[record.number] = record  # a promoted one stands again, later
                self._trial_ids[record.number] = trial._trial_id
                if trial.state.is_finished():
                    self._finished.add(record.number)
                else:
                    self._finished.discard(record.number)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path}: this is not a readable study ({first_line(error)}); restore "
                            "the file from a copy, or start a new study") from error

    @classmethod
    def create(cls, runs_dir: Path, name: str, manifest: dict) -> Study:
        """A new, empty study.

        Raises:
            UserError: it exists, or the folder cannot be written.
        """
        folder = runs_dir / checked_name(name)
        if (folder / MANIFEST).exists():
            raise already_there(runs_dir, name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another "
                            "--runs-dir") from error
        study = cls(folder, manifest)
        write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        return study

    @classmethod
    def open(cls, runs_dir: Path, name: str) -> Study:
        """An existing study.

        Raises:
            UserError: unknown (the known ones are listed), or damaged.
        """
        folder = find_study(runs_dir, name)
        return cls(folder, read_manifest(folder))

    @property
    def records(self) -> list[TrialRecord]:
        """All records, by number."""
        return [self._records[number] for number in sorted(self._records)]

    def add(self, record: TrialRecord, distributions: Mapping[str, object]) -> None:
        """Store a new record; its number must be the next one."""
        assert record.number == len(self._records), (record.number, len(self._records))
        self._create(record, distributions)

    def put(self, record: TrialRecord) -> None:
        """Store the new state of a record."""
        from optuna.trial import TrialState

        old = self._records[record.number]
        if record.number in self._finished:  # a finished Optuna trial is immutable: stand up a copy
            trial = self._storage.get_trial(self._trial_ids[record.number])
            self._create(record, trial.distributions)
            return
        trial_id = self._trial_ids[record.number]
        self._storage.set_trial_user_attr(trial_id, RECORD_ATTRIBUTE, _text(record))
        for epoch, score in record.scores(since=len(old.epochs)).items():
            self._storage.set_trial_intermediate_value(trial_id, epoch, score)
        self._records[record.number] = record
        if record.status.ended:
            state = {Status.COMPLETED: TrialState.COMPLETE, Status.PRUNED: TrialState.PRUNED}.get(
                record.status, TrialState.FAIL)
            if record.accuracy_score is not None:
                self._storage.set_trial_user_attr(trial_id, "accuracy_score", record.accuracy_score)
            self._storage.set_trial_state_values(
                trial_id, state, [record.score] if state is TrialState.COMPLETE else None)
            self._finished.add(record.number)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the study's one writer meanwhile.

        Raises:
            UserError: another process is.
        """
        with open(self.folder / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"study {self.name} is in use by another process; wait for it, or "
                                "choose another --study") from error
            yield

    def _create(self, record: TrialRecord, distributions: Mapping[str, object]) -> None:
        from optuna.trial import FrozenTrial, TrialState

        ended, completed = record.status.ended, record.status is Status.COMPLETED
        state = (TrialState.COMPLETE if completed  # elsewhere: its result was taken over
                 else TrialState.FAIL if ended else TrialState.RUNNING)
        trial = FrozenTrial(
            number=-1, trial_id=-1, state=state, value=record.score if completed else None,
            datetime_start=datetime.now(), datetime_complete=datetime.now() if ended else None,
            params={name: record.params[name] for name in distributions},
            distributions=dict(distributions), intermediate_values=record.scores(),
            system_attrs={},
            user_attrs={RECORD_ATTRIBUTE: _text(record), "design": record.design,
                        "params": record.cost.params, "macs": record.cost.macs,
                        "speed_score": record.speed_score})
        trial_id = self._storage.create_new_trial(self._optuna._study_id, template_trial=trial)
        self._trial_ids[record.number] = trial_id
        self._records[record.number] = record
        (self._finished.add if ended else self._finished.discard)(record.number)


def already_there(runs_dir: Path, name: str) -> UserError:
    """The complaint about a new study under a name that is taken."""
    return UserError(f"study {name} exists in {runs_dir}; add --resume to go on with it, or choose "
                     "another --study")


def _record_of(trial) -> TrialRecord:
    return TrialRecord.from_dict(json.loads(trial.user_attrs[RECORD_ATTRIBUTE]))


def _text(record: TrialRecord) -> str:
    return json.dumps(record.to_dict(), separators=(",", ":"))
