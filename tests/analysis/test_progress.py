from dataclasses import replace

import numpy as np
import pytest

from analysis.progress import progress_of, reach, spending
from detector.config.presets import load_preset
from trials.record import Cost, EpochResult, Status, TrialRecord

DESIGN, RECIPE = load_preset("retinaface_mobile025")


def record(number, status, epochs, accuracy=0.0, started=0.0, ended=None) -> TrialRecord:
    ap = {"easy": accuracy, "medium": accuracy, "hard": accuracy}
    return TrialRecord(
        number=number,
        status=status,
        design="",
        detector=DESIGN,
        recipe=RECIPE,
        params={},
        cost=Cost(params=1, macs=1),
        speed_score=0.5,
        started=started,
        ended=ended,
        epochs=tuple(
            EpochResult(epoch=n + 1, losses={}, lr=0.1, seconds=2.0, ap=ap) for n in range(epochs)
        ),
    )


RECORDS = [
    record(0, Status.COMPLETED, 4, 0.3, started=0, ended=10),
    record(1, Status.PRUNED, 1, 0.9, started=1, ended=99),
    record(2, Status.COMPLETED, 4, 0.2, started=11, ended=20),
    record(3, Status.INFEASIBLE, 0, started=12, ended=12),
    record(4, Status.COMPLETED, 4, 0.5, started=13, ended=18),
]


def test_course_of_a_search_by_hand():
    course = progress_of(RECORDS)  # completed in the order 0, 4, 2
    assert course.trials.tolist() == [2, 4, 4]
    assert course.epochs.tolist() == [5, 13, 13]
    assert course.best == pytest.approx([1.1, 1.5, 1.5])  # what was pruned does not count
    assert course.hypervolume == pytest.approx([0.15, 0.25, 0.25])
    assert reach(course.best, course.epochs, 1.2) == 13
    assert reach(course.best, course.epochs, 1.6) is None


def test_epochs_count_from_when_they_were_trained():
    stamped = [
        r.evolve(
            epochs=tuple(
                replace(e, ended=r.started + (1 + (r.number == 2)) * e.epoch) for e in r.epochs
            )
        )
        for r in RECORDS
    ]
    # at 10 s the baseline's and the pruned one's; trial 2's at 13, 15, 17, 19 s; trial 4's by 17 s
    assert progress_of(stamped).epochs.tolist() == [5, 12, 13]
    assert progress_of(stamped).front.tolist() == [1, 1, 1]


def test_nothing_completed():
    course = progress_of([RECORDS[1]])
    assert all(len(values) == 0 for values in (course.trials, course.best, course.hypervolume))


def test_spending_adds_up():
    found = spending(RECORDS)
    assert [(s.outcome, s.trials, s.epochs, s.seconds) for s in found] == [
        ("completed", 3, 12, 24.0),
        ("pruned at epoch 1", 1, 1, 2.0),
        ("infeasible", 1, 0, 0),
    ]
    assert np.sum([s.epochs for s in found]) == sum(len(r.epochs) for r in RECORDS)
