"""When detections count as equal, and when an entry is not complete."""

from pathlib import Path

import numpy as np
import pytest

from detector.base.cli import PartialFailure
from nas.evaluation import check_entry
from nas.evaluation.entry import checked_rules


def test_equal_detections_may_be_rounded_otherwise():
    rows = np.array([[10, 20, 30, 40, 0.9], [50, 60, 7, 8, 0.5]])
    assert check_entry.count_unmatched(rows, rows + [1, 0, -1, 0, 1e-3]) == 0
    assert check_entry.count_unmatched(rows, rows[:1]) == 1
    assert check_entry.count_unmatched(rows, rows[:0]) == 2
    assert check_entry.count_unmatched(rows, rows + [0, 3, 0, 0, 0]) == 4
    assert check_entry.count_unmatched(rows, rows + [0, 0, 0, 0, 0.01]) == 4


def test_images_that_cannot_be_read_are_said():
    rules = [
        {"rule": "size", "holds": True, "evidence": ""},
        {"rule": "data", "holds": None, "evidence": ""},
    ]
    result = {"rules": rules, "unreadable": ["0--Parade/a.jpg"], "images": 8}
    with pytest.raises(PartialFailure) as failure:
        checked_rules(Path("e"), {"entry": "e"}, result)
    assert failure.value.result == {"entry": "e"} and str(failure.value) == (
        "e: packed, but: data is unknown; 1 of 8 val images cannot be read (the first is "
        "0--Parade/a.jpg) and count as having no detections"
    )
