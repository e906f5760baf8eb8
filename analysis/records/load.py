"""Reads the records of a study from its folder."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from analysis.records.database import stored_trials
from detector.base.errors import UserError, first_line
from detector.base.files import is_file
from trials.folders import DATABASE, database_url
from trials.plugins import check_plugins
from trials.record import LEVELS, TrialRecord, records_from_json


def load_records(folder: Path) -> list[TrialRecord]:
    """All records of the study in `folder`, by number; read-only. An AP that is no number, or lacks
    a level, counts as not evaluated.

    Raises:
        UserError: there is no study, or its storage cannot be read.
    """
    path = Path(folder) / DATABASE
    if not is_file(path):
        raise UserError(
            f"{path}: no such file; give the folder of a study, such as runs/retina-001"
        )
    check_plugins(Path(folder))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it logs which study it loaded
    try:
        optuna.load_study(study_name=None, storage=database_url(path))  # checks its version
        # A trial resumed after its end is listed twice: the later record counts.
        records = {
            record.number: _without_invalid_ap(record)
            for trial in stored_trials(path)
            for record in records_from_json(trial.text)
        }
    except UserError:
        raise
    except Exception as error:  # whatever sqlite, SQLAlchemy or Optuna raise for a damaged file
        raise UserError(
            f"{path}: not a readable study ({first_line(error)}); restore it from a copy"
        ) from error
    return [records[number] for number in sorted(records)]


def _without_invalid_ap(record: TrialRecord) -> TrialRecord:
    invalid = {e.epoch for e in record.epochs if e.ap is not None and not _is_valid(e.ap)}
    if not invalid:
        return record
    return record.evolve(
        epochs=tuple(replace(e, ap=None) if e.epoch in invalid else e for e in record.epochs)
    )


def _is_valid(ap: dict) -> bool:
    return all(math.isfinite(ap.get(level, math.nan)) for level in LEVELS)
