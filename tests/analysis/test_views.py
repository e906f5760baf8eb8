"""Records from a study's storage, as tables and pictures."""

import csv
import json

import cv2
import optuna
import pytest

from analysis.charts import front_html
from analysis.figures import front_png
from analysis.front import dot_area, front_data, size_marks
from analysis.load import load_records
from analysis.tables import trials_csv
from detector.base.errors import UserError
from detector.config.presets import load_preset
from trials.record import RECORD_ATTRIBUTE, Cost, EpochResult, Status, TrialRecord

DESIGN, RECIPE = load_preset("retinaface_mobile025")


def record(
    number: int, accuracy: float, macs: float, status: Status = Status.COMPLETED, **changes
) -> TrialRecord:
    ap = {"easy": accuracy, "medium": accuracy, "hard": accuracy}
    return TrialRecord(
        number=number,
        status=status,
        design=f"{number:012x}",
        detector=DESIGN,
        recipe=RECIPE,
        params={"width": 8 * number},
        cost=Cost(params=40_000 * (number + 1), macs=int(macs * 1e9)),
        speed_score=1 - macs / 10,
        rung=1,
        epochs=(EpochResult(epoch=1, losses={"total": 2.0}, lr=0.1, seconds=1.5, ap=ap),),
    ).evolve(**changes)


@pytest.fixture
def records():
    return [
        record(0, 0.50, 1.0),
        record(1, 0.55, 1.5),
        record(2, 0.40, 0.5),
        record(3, 0.45, 2.0),
        record(4, 0.70, 0.1, Status.PRUNED, reason="not promoted"),
        record(5, 0.0, 9.0, Status.INFEASIBLE, epochs=(), reason="too many parameters"),
    ]


def test_groups_leave_lower_budgets_out(records):
    data = front_data(records)
    assert [r.number for r in data.front] == [2, 0, 1]
    assert [r.number for r in data.dominated] == [3]
    assert (data.baseline.number, data.best.number) == (0, 1)
    assert "4 completed trials, 3 on the front; not shown: 1 infeasible, 1 pruned" in data.caption


def test_picture_and_page(records, tmp_path):
    path = front_png(records, tmp_path / "front.png", title="quick-001")
    height, width = cv2.imread(str(path)).shape[:2]
    assert (width, height) == (1125, 750)
    page = front_html(records, tmp_path / "front.html", title="quick-001").read_text()
    assert "<script src=" not in page  # self-contained
    assert "r001" in page and "MACs at 640" in page


@pytest.mark.parametrize("kept", [[], [0]])
def test_pictures_of_few_trials(records, tmp_path, kept):
    few = [records[i] for i in kept]
    assert front_png(few, tmp_path / "front.png", title="x").stat().st_size > 1000
    assert front_html(few, tmp_path / "front.html", title="x").exists()


def test_table(records, tmp_path):
    with open(trials_csv(records, tmp_path / "trials.csv")) as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == [r.status.value for r in records]
    assert float(rows[1]["score"]) == records[1].score
    assert rows[5]["score"] == "" and rows[5]["reason"] == "too many parameters"
    assert rows[2]["width"] == "16"


def test_dots_grow_with_parameters():
    assert dot_area(1_000) == 20 and dot_area(100_000) == 40
    assert size_marks([30_000, 900_000]) == [1e4, 1e5, 1e6]
    assert len(size_marks([1_000, 40_000_000])) == 3


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
