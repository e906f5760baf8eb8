"""The rows of a study's database that hold its records.

Read by SQL, in a tenth of the time that Optuna takes to read all that it stores of each trial.
`tests/analysis/records/test_database.py` compares the two.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from trials.record import RECORD_ATTRIBUTE

TIMEOUT_S = 100
"""Wait for a lock that a writer holds; SQLite's default of 5 s is too short on a busy disk."""


@dataclass(frozen=True)
class StoredTrial:
    trial_id: int
    """Optuna's."""
    finished: bool
    """Whether Optuna counts it as finished, so that it cannot change any more."""
    text: str
    """One record or several, see `trials.record.records_from_json`."""


def stored_trials(path: Path) -> list[StoredTrial]:
    """All trials in a study's database, in the order in which they were stored.

    Raises:
        sqlite3.Error, ValueError, TypeError: the file is damaged.
    """
    rows = _select(
        path,
        "SELECT trials.trial_id, trials.state, COALESCE(current.value_json, early.value_json) "
        "FROM trials "
        "LEFT JOIN trial_system_attributes AS current "
        "ON current.trial_id = trials.trial_id AND current.key = ? "
        "LEFT JOIN trial_user_attributes AS early "  # where 0.1.0 stored it
        "ON early.trial_id = trials.trial_id AND early.key = ? ORDER BY trials.number",
        RECORD_ATTRIBUTE,
        RECORD_ATTRIBUTE,
    )
    return [
        StoredTrial(trial_id, state in ("COMPLETE", "PRUNED", "FAIL"), json.loads(value))
        for trial_id, state, value in rows
    ]


def reported_epochs(path: Path) -> dict[int, set[int]]:
    """Id of each trial that is not finished → epochs whose score Optuna has."""
    epochs: dict[int, set[int]] = {}
    for trial_id, epoch in _select(
        path,
        "SELECT trials.trial_id, step FROM trials JOIN trial_intermediate_values AS scores "
        "ON scores.trial_id = trials.trial_id WHERE state NOT IN ('COMPLETE', 'PRUNED', 'FAIL')",
    ):
        epochs.setdefault(trial_id, set()).add(epoch)
    return epochs


def _select(path: Path, query: str, *values: str) -> list[tuple]:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S)) as connection:
        return connection.execute(query, values).fetchall()
