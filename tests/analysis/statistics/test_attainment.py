import numpy as np
import pytest

from analysis.statistics.pareto import (
    attained,
    attainment,
    dominated,
    hypervolume_2d,
    running_fronts,
)


def test_running_hypervolume_is_the_hypervolume_of_each_prefix():
    points = np.random.default_rng(1).random((60, 2)).round(1)  # rounded, so that some are equal
    areas, sizes = running_fronts(points)
    assert sizes.tolist() == [int((~dominated(points[: n + 1])).sum()) for n in range(60)]
    assert areas == pytest.approx([hypervolume_2d(points[: n + 1]) for n in range(60)])
    assert (np.diff(areas) >= 0).all() and running_fronts(np.zeros((0, 2)))[0].tolist() == []


def test_hypervolume_agrees_with_optunas():
    from optuna._hypervolume import compute_hypervolume

    points = np.random.default_rng(2).random((40, 2))
    assert hypervolume_2d(points) == pytest.approx(compute_hypervolume(-points, np.zeros(2)))


def test_attained_by_hand():
    points = np.array([(0.5, 0.3), (0.8, 0.2), (0.6, 0.1)])
    assert attained(points, [0.0, 0.5, 0.55, 0.8, 0.9]).tolist() == [0.3, 0.3, 0.2, 0.2, -np.inf]
    assert attained(np.zeros((0, 2)), [0.5]).tolist() == [-np.inf]


def test_area_under_what_is_attained_is_the_hypervolume():
    points = np.random.default_rng(3).integers(1, 50, (20, 2))
    assert attained(points, np.arange(1, 51)).clip(0).sum() == hypervolume_2d(points)


def test_attainment_of_several_searches():
    one, two, three = (np.array([(0.5, level)]) for level in (0.1, 0.3, 0.2))
    at = [0.4, 0.6]
    assert attainment([one, two, three], at, 0.5).tolist() == [0.2, -np.inf]  # the median one
    assert attainment([one, two, three], at, 1.0)[0] == 0.1  # all
    assert attainment([one, two, three], at, 0.01)[0] == 0.3  # any
    assert attainment([one], at).tolist() == attained(one, at).tolist()
