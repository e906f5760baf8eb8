from dataclasses import replace

import helpers
import numpy as np
import pytest

from analysis.statistics.progress import progress_of, reach, spending
from trials.record import EpochResult, Status, TrialRecord


def record(number, status, epochs, accuracy=0.0, started=0.0, ended=None) -> TrialRecord:
    ap = helpers.equal_ap(accuracy)
    return helpers.trial_record(
        number,
        status=status,
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


def test_progress_of_a_search_by_hand():
    progress = progress_of(RECORDS)  # completed in the order 0, 4, 2
    assert progress.trials.tolist() == [2, 4, 4]
    assert progress.epochs.tolist() == [5, 13, 13]
    assert progress.best == pytest.approx([1.1, 1.5, 1.5])  # pruned trials do not count
    assert progress.hypervolume == pytest.approx([0.15, 0.25, 0.25])
    assert reach(progress.best, progress.epochs, 1.2) == 13
    assert reach(progress.best, progress.epochs, 1.6) is None


def test_epochs_count_from_when_they_were_trained():
    timed = [
        r.evolve(
            epochs=tuple(
                replace(e, ended=r.started + (1 + (r.number == 2)) * e.epoch) for e in r.epochs
            )
        )
        for r in RECORDS
    ]
    # at 10 s the baseline's and the pruned one's; trial 2's at 13, 15, 17, 19 s; trial 4's by 17 s
    assert progress_of(timed).epochs.tolist() == [5, 12, 13]
    assert progress_of(timed).front.tolist() == [1, 1, 1]


def test_nothing_completed():
    progress = progress_of([RECORDS[1]])
    assert all(
        len(values) == 0 for values in (progress.trials, progress.best, progress.hypervolume)
    )


def test_spending_adds_up():
    rows = spending(RECORDS)
    assert [(s.outcome, s.trials, s.epochs, s.seconds) for s in rows] == [
        ("completed", 3, 12, 24.0),
        ("pruned at epoch 1", 1, 1, 2.0),
        ("infeasible", 1, 0, 0),
    ]
    assert np.sum([s.epochs for s in rows]) == sum(len(r.epochs) for r in RECORDS)
