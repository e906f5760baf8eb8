"""The groups of a front, drawn as a PNG file and as a page."""

import cv2
import pytest

from analysis.figures.charts.front import front_html
from analysis.figures.png.front import front_png
from analysis.figures.style import dot_area, size_marks
from analysis.statistics.front import front_data


def test_trials_at_lower_budgets_are_left_out(records):
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


@pytest.mark.parametrize("count", [0, 1])
def test_pictures_of_few_trials(records, tmp_path, count):
    few = records[:count]
    assert front_png(few, tmp_path / "front.png", title="x").stat().st_size > 1000
    assert front_html(few, tmp_path / "front.html", title="x").exists()


def test_dots_grow_with_parameters():
    assert dot_area(1_000) == 20 and dot_area(100_000) == 40
    assert size_marks([30_000, 900_000]) == [1e4, 1e5, 1e6]
    assert len(size_marks([1_000, 40_000_000])) == 3
