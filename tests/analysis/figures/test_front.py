"""The groups of a front, drawn as a PNG file and as a chart."""

from dataclasses import replace

import cv2
import helpers
import pytest

from analysis.figures.charts.front import front_chart
from analysis.figures.png.front import front_png
from analysis.figures.style import dot_area, size_marks
from analysis.statistics.front import front_data


def test_trials_at_lower_budgets_are_left_out(records):
    data = front_data(records)
    assert [r.number for r in data.front] == [2, 0, 1]
    assert [r.number for r in data.dominated] == [3]
    assert (data.baseline.number, data.best.number) == (0, 1)
    assert "4 completed trials, 3 on the front; not shown: 1 infeasible, 1 pruned" in data.caption


def test_picture(records, tmp_path):
    path = front_png(records, tmp_path / "front.png", title="quick-001")
    height, width = cv2.imread(str(path)).shape[:2]
    assert (width, height) == (1125, 750)


@pytest.mark.parametrize("count", [0, 1])
def test_pictures_of_few_trials(records, tmp_path, count):
    few = records[:count]
    assert front_png(few, tmp_path / "front.png", title="x").stat().st_size > 1000
    assert len(front_chart(few, quoted=True).data) >= 3


def traces(figure) -> dict:
    return {trace.name: trace for trace in figure.data}


def test_a_chart_shows_own_trials_and_the_published_ones_on_demand(records):
    shown = traces(front_chart(records, quoted=True))
    front = shown["front, with trial numbers"]
    assert front.customdata == (2, 0, 1) and front.text == ("2", "0", "1")
    assert front.hovertext[2].startswith("<b>r001</b>")
    assert shown["dominated"].customdata == (3,)
    assert shown["published (click to show)"].visible == "legendonly"
    assert {"10 k parameters", "100 k parameters", "1 M parameters"} <= set(shown)
    areas = [shown[name].marker.size ** 2 for name in ("10 k parameters", "1 M parameters")]
    assert areas[1] / areas[0] == pytest.approx(dot_area(1e6) / dot_area(1e4))


def test_numbers_that_would_overlap_are_left_out(records):
    close = records[0].evolve(number=7, cost=replace(records[0].cost, macs=1_001_000_000))
    figure = front_chart([*records, with_accuracy(close, 0.51)])
    assert traces(figure)["front, with trial numbers"].text == ("2", "0", "", "1")


def test_designs_that_have_learned_nothing_do_not_flatten_the_axes(records):
    dead = with_accuracy(records[3].evolve(number=7), 0.0)
    baseline = with_accuracy(records[0], 0.0)
    figure = front_chart([baseline, *records[1:], dead])
    assert "baseline" not in traces(figure)
    assert min(y for trace in figure.data for y in trace.y if y is not None) == pytest.approx(0.4)


def with_accuracy(record, accuracy: float):
    epochs = tuple(replace(e, ap=helpers.equal_ap(accuracy)) for e in record.epochs)
    return record.evolve(epochs=epochs)


def test_dots_grow_with_parameters():
    assert dot_area(1_000) == 20 and dot_area(100_000) == 40
    assert size_marks([30_000, 900_000]) == [1e4, 1e5, 1e6]
    assert len(size_marks([1_000, 40_000_000])) == 3
