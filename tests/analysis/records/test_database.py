"""The rows of a study's database, compared with what Optuna reads."""

import optuna

from analysis.records.database import reported_epochs, stored_trials
from trials.folders import DATABASE
from trials.record import RECORD_ATTRIBUTE, EpochResult, Status, records_from_json


def test_the_rows_are_what_optuna_reads(tiny_study):
    record = tiny_study.records[1].evolve(number=3, status=Status.RUNNING, ended=None)
    tiny_study.add(record, {})
    epoch = EpochResult(epoch=3, losses={}, lr=0.1, seconds=1.0, ap=record.ap)
    tiny_study.put(record.evolve(epochs=(*record.epochs, epoch)))
    tiny_study.add_infeasible(
        [record.evolve(number=n, status=Status.INFEASIBLE, epochs=()) for n in (4, 5)]
    )
    tiny_study.put(tiny_study.records[1].evolve(retries=1))  # finished, so stored once more
    path = tiny_study.folder / DATABASE
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{path}").get_trials()
    rows = stored_trials(path)
    assert [(row.trial_id, row.finished, row.text) for row in rows] == [
        (trial._trial_id, trial.state.is_finished(), trial.user_attrs[RECORD_ATTRIBUTE])
        for trial in trials
    ]
    assert [r.number for row in rows for r in records_from_json(row.text)] == [0, 1, 2, 3, 4, 5, 1]
    assert reported_epochs(path) == {
        trial._trial_id: set(trial.intermediate_values)
        for trial in trials
        if not trial.state.is_finished()
    }
    assert set().union(*reported_epochs(path).values()) == {2, 3}
