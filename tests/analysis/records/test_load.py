"""Records read from a study's storage, and written as a table."""

import csv
import json

import optuna
import pytest

from analysis.records.load import load_records
from analysis.records.tables import trials_csv
from detector.base.errors import UserError
from trials.record import RECORD_ATTRIBUTE, Status


def test_table(records, tmp_path):
    with open(trials_csv(records, tmp_path / "trials.csv")) as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == [r.status.value for r in records]
    assert float(rows[1]["score"]) == records[1].score
    assert rows[5]["score"] == "" and rows[5]["reason"] == "too many parameters"
    assert rows[2]["width"] == "16"


def test_records_come_back_from_the_storage(records, tmp_path):
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="any")
    resumed = records[4].evolve(status=Status.COMPLETED, reason=None)
    for item in [*records, resumed]:
        trial = study.ask()
        trial.set_user_attr(RECORD_ATTRIBUTE, json.dumps(item.to_dict()))
    loaded = load_records(tmp_path)
    assert loaded[:4] == records[:4] and loaded[5] == records[5]
    assert loaded[4].status is Status.COMPLETED


def test_bad_storage_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_records(tmp_path)
    (tmp_path / "study.db").write_text("not a database, but long enough to look like one" * 50)
    with pytest.raises(UserError, match=r"study\.db: not a readable study"):
        load_records(tmp_path)
