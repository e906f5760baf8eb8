"""Interactive charts of a search."""

import numpy as np
import pytest

from analysis.figures.charts.search import parallel_chart


def test_rates_have_a_log_axis(records):
    rates = np.array([[0.001, 1.0], [0.01, 2.0], [0.1, 3.0]])
    names = ["recipe.optimizer.lr", "neck.width"]
    (line,) = parallel_chart(records[:3], rates, names, [{}, {}]).data
    lr, width, macs, *_ = line.dimensions
    assert lr["label"] == names[0]
    assert list(lr["values"]) == pytest.approx([-3, -2, -1])
    assert list(lr["tickvals"]) == pytest.approx([-3, -2, -1])
    assert list(lr["ticktext"]) == ["0.001", "0.01", "0.1"]
    assert list(width["values"]) == [1.0, 2.0, 3.0] and macs["label"] == "G MACs"
