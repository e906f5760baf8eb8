"""Reads the records of a study from its folder."""

from __future__ import annotations

from pathlib import Path

from detector.base.errors import UserError, first_line
from trials.folders import DATABASE
from trials.record import RECORD_ATTRIBUTE, TrialRecord, records_from_json


def load_records(folder: Path) -> list[TrialRecord]:
    """All records of the study in `folder`, by number; read-only.

    Raises:
        UserError: there is no study, or its storage cannot be read.
    """
    path = Path(folder) / DATABASE
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give the folder of a study, such as runs/retina-001"
        )
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it logs which study it loaded
    try:
        trials = optuna.load_study(
            study_name=None, storage=f"sqlite:///{path.resolve()}"
        ).get_trials(deepcopy=False)
        # A trial resumed after its end is listed twice: the later record counts.
        records = {
            record.number: record
            for trial in trials
            for record in records_from_json(trial.user_attrs[RECORD_ATTRIBUTE])
        }
    except UserError:
        raise
    except Exception as error:  # whatever sqlite, SQLAlchemy or Optuna raise for a damaged file
        raise UserError(
            f"{path}: not a readable study ({first_line(error)}); restore it from a copy"
        ) from error
    return [records[number] for number in sorted(records)]
