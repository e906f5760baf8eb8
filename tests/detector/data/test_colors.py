"""Colour jitter: what its settings change, and what an affine map makes equal."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from detector.config.recipe import Augmentation
from detector.data.colors import _rotation, recolor, sample_colors
from detector.data.random_numbers import COLORS, NUMBERS

NUMBERS_OF = np.random.default_rng(0).random((6000, NUMBERS))


def angle_of(color):
    """Degrees that a map of hue alone rotates by: trace = 1 + 2 cos."""
    return np.rad2deg(np.arccos(np.clip((np.trace(color[:, :3]) - 1) / 2, -1, 1)))


@pytest.mark.parametrize("hue", [0.0, 18.0, 36.0, 90.0])
def test_hue_is_uniform_to_either_side(hue):
    numbers = NUMBERS_OF[:2000].copy()
    numbers[:, COLORS.start : COLORS.start + 3] = 1.0  # no other jitter
    numbers[:, COLORS.start + 3] = 0.0
    colors = sample_colors(Augmentation(hue=hue, photometric=0.5), numbers)
    angles = np.array([angle_of(color) for color in colors])
    assert angles.max() <= hue + 1e-5
    assert angles.mean() == pytest.approx(hue / 2, rel=0.05, abs=1e-5)


def test_other_jitter_does_not_depend_on_the_range_of_hue():
    numbers = NUMBERS_OF[:200].copy()
    numbers[:, COLORS.start + 3] = 1.0  # no hue
    narrow, wide = (sample_colors(Augmentation(hue=hue), numbers) for hue in (18, 36))
    assert (narrow == wide).all()


def test_channels_are_permuted_as_often_as_set_and_every_way():
    plain = sample_colors(Augmentation(), NUMBERS_OF)
    permuted = sample_colors(Augmentation(permute_channels=0.5), NUMBERS_OF)
    orders = list(permutations(range(3)))
    counts = dict.fromkeys(orders, 0)
    for one, other in zip(plain, permuted):
        order = next(order for order in orders if np.array_equal(one[list(order)], other))
        counts[order] += 1
    identity = counts.pop((0, 1, 2))
    assert identity / len(plain) == pytest.approx(1 / 2 + 1 / 12, abs=0.02)
    assert chisquare(list(counts.values())).pvalue > 0.01


def test_a_permutation_alone_is_exact():
    image = np.random.default_rng(2).integers(0, 256, (9, 7, 3), np.uint8)
    colors = sample_colors(Augmentation(photometric=0, permute_channels=1), NUMBERS_OF[:50])
    for color in colors:
        order = color[:, :3].argmax(axis=1)
        out = image.copy()
        recolor(out, color)
        np.testing.assert_array_equal(out, image[..., order])


def test_contrast_before_and_after_saturation_and_hue_is_the_same():
    """PhotoMetricDistortion draws the order; for linear maps with a scalar it is one map."""
    grey = np.array([0.114, 0.587, 0.299])
    saturation = 0.7 * np.eye(3) + 0.3 * grey
    turn = _rotation(np.deg2rad(20))
    colour = np.array([30.0, 120, 200])
    np.testing.assert_allclose(
        turn @ saturation @ (1.3 * colour), 1.3 * (turn @ saturation @ colour)
    )
