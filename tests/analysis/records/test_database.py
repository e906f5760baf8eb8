"""The rows of a study's database, compared with what Optuna reads."""

import sqlite3

import optuna

from analysis.records.database import reported_epochs, stored_trials
from nas.study.storage import Study
from trials.folders import DATABASE
from trials.record import RECORD_ATTRIBUTE, EpochResult, Status, records_from_json


def test_records_of_version_0_1_are_user_attributes_until_they_change(tiny_study):
    """Of its studies, those that a later version goes on with have both."""
    path, last = tiny_study.folder / DATABASE, tiny_study.records[-1]
    running = last.evolve(number=last.number + 1, status=Status.RUNNING, ended=None)
    tiny_study.add(running, {})
    with sqlite3.connect(path) as database:
        database.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
            "SELECT trial_id, key, value_json FROM trial_system_attributes WHERE key = 'record'"
        )
        database.execute("DELETE FROM trial_system_attributes WHERE key = 'record'")
    database.close()
    before = [r for row in stored_trials(path) for r in records_from_json(row.text)]
    assert before == tiny_study.records
    study = Study.open(tiny_study.folder.parent, tiny_study.folder.name)
    study.put(running.evolve(retries=1))
    after = [r for row in stored_trials(path) for r in records_from_json(row.text)]
    assert after == [*before[:-1], running.evolve(retries=1)]


def test_the_rows_are_what_optuna_reads(tiny_study):
    record = tiny_study.records[1].evolve(number=3, status=Status.RUNNING, ended=None)
    tiny_study.add(record, {})
    epoch = EpochResult(epoch=3, losses={}, lr=0.1, seconds=1.0, ap=record.ap)
    tiny_study.put(record.evolve(epochs=(*record.epochs, epoch)))
    tiny_study.add_infeasible(
        [record.evolve(number=n, status=Status.INFEASIBLE, epochs=()) for n in (4, 5)], [{}, {}]
    )
    tiny_study.put(tiny_study.records[1].evolve(retries=1))  # finished, so stored once more
    path = tiny_study.folder / DATABASE
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{path}").get_trials()
    rows = stored_trials(path)
    assert [(row.trial_id, row.finished, row.text) for row in rows] == [
        (trial._trial_id, trial.state.is_finished(), trial.system_attrs[RECORD_ATTRIBUTE])
        for trial in trials
    ]
    assert [r.number for row in rows for r in records_from_json(row.text)] == [0, 1, 2, 3, 4, 5, 1]
    assert reported_epochs(path) == {
        trial._trial_id: set(trial.intermediate_values)
        for trial in trials
        if not trial.state.is_finished()
    }
    assert set().union(*reported_epochs(path).values()) == {2, 3}
