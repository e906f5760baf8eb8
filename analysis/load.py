"""A study's folder → its records."""

from __future__ import annotations

from pathlib import Path

from detector.base.errors import UserError
from trials.folders import DATABASE, first_line
from trials.record import RECORD_ATTRIBUTE, TrialRecord, records_in


def load_records(folder: Path) -> list[TrialRecord]:
    """All records of the study in `folder`, by number; reads only.

    Raises:
        UserError: there is no study, or its storage cannot be read.
    """
    path = Path(folder) / DATABASE
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give the folder of a study, such as runs/retina-001"
        )
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells which study it took
    try:
        trials = optuna.load_study(
            study_name=None, storage=f"sqlite:///{path.resolve()}"
        ).get_trials(deepcopy=False)
        # A trial taken up again after its end stands twice: the later one counts.
        records = {
            record.number: record
            for trial in trials
            for record in records_in(trial.user_attrs[RECORD_ATTRIBUTE])
        }
    except UserError:
        raise
    except Exception as error:  # whatever sqlite, SQLAlchemy or Optuna make of a damaged file
        raise UserError(
            f"{path}: not a readable study ({first_line(error)}); restore it from a copy"
        ) from error
    return [records[number] for number in sorted(records)]
