import helpers
import numpy as np
import pytest

from analysis.statistics.front import front_data
from analysis.statistics.pareto import dominated, front_of, hypervolume_2d, hypervolume_of
from trials.record import Cost, EpochResult, TrialRecord


def record(number: int, accuracy: float | None, speed: float) -> TrialRecord:
    ap = None if accuracy is None else helpers.equal_ap(accuracy)
    epochs = (EpochResult(epoch=1, losses={}, lr=0.1, seconds=1.0, ap=ap),)
    cost = Cost(params=1, macs=int(10 ** (11 - 3 * speed)))
    return helpers.trial_record(number, cost=cost, speed_score=min(speed, 1), epochs=epochs)


def test_dominance_by_hand():
    points = [(1, 1), (2, 2), (1, 3), (2, 2), (2, 1)]
    assert dominated(np.array(points)).tolist() == [True, False, False, False, True]
    assert dominated(np.zeros((0, 2))).tolist() == []


def test_hypervolume_closed_form():
    assert hypervolume_2d(np.zeros((0, 2))) == 0
    assert hypervolume_2d(np.array([(2, 3)])) == 6
    # Corners (3,1) (2,2) (1,3): a staircase of 3 + 2 + 1.
    stairs = np.array([(1, 3), (3, 1), (2, 2)])
    assert hypervolume_2d(stairs) == 6
    assert hypervolume_2d(np.vstack([stairs, [(1, 1), (2, 2), (3, 1)]])) == 6  # nothing new
    assert hypervolume_2d(stairs, reference=(1, 1)) == 1  # (2, 2) alone lies above both
    # Points on a line x + y = 1, n steps: (n - 1) / 2n of the unit square.
    n = 50
    line = np.array([(k / n, 1 - k / n) for k in range(n + 1)])
    assert hypervolume_2d(line) == pytest.approx((n - 1) / (2 * n))


def test_hypervolume_equals_counted_grid():
    points = np.random.default_rng(0).integers(1, 20, (30, 2))
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2)
    cells = (points[None] > grid[:, None]).all(-1).any(-1).sum()
    assert hypervolume_2d(points) == cells


def test_front_of_records():
    records = [
        record(0, 0.5, 0.5),
        record(1, 0.6, 0.4),
        record(2, 0.4, 0.4),
        record(3, None, 0.9),
        record(4, 0.3, 0.8),
    ]
    assert [r.number for r in front_of(records, "macs")] == [4, 0, 1]
    assert front_of(records, "latency_ms") == []  # not measured
    assert hypervolume_of(records) == pytest.approx(0.6 * 0.4 + 0.5 * 0.1 + 0.3 * 0.3)
    assert front_of([], "macs") == [] and hypervolume_of([]) == 0


def test_designs_that_share_the_highest_speed_score_are_told_apart_by_their_cost():
    records = [record(0, 0.4, 1.1), record(1, 0.5, 1.05), record(2, 0.4, 1.0), record(3, 0.6, 0.9)]
    assert [r.number for r in front_of(records, "macs")] == [0, 1, 3]
    assert [r.number for r in front_data(records).front] == [0, 1, 3]
