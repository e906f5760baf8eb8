"""Draws are disjoint, of the right share, and independent of order."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.data.splits import Subset, stratified

NAMES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 400)), min_size=2, max_size=150, unique=True
).map(lambda pairs: [f"{e}--Event/{i}.jpg" for e, i in pairs])


@settings(max_examples=60, deadline=None)
@given(NAMES, st.floats(0.05, 0.95), st.integers(0, 5), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_events_keep_their_part(names, share, seed, random):
    flags = dict(zip(names, stratified(names, share, seed, "holdout")))
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert dict(zip(shuffled, stratified(shuffled, share, seed, "holdout"))) == flags
    sizes = Counter(name.split("/")[0] for name in names)
    drawn = Counter(name.split("/")[0] for name in names if flags[name])
    for event, size in sizes.items():
        assert abs(drawn[event] - share * size) <= 1
        if size > 1:
            assert 1 <= drawn[event] < size
    assert abs(sum(drawn.values()) - share * len(names)) <= 0.5 + len(sizes)


def test_share_is_exact_over_many_small_events():
    names = [f"{e}--E/{i}.jpg" for e in range(61) for i in range(8)]
    assert sum(stratified(names, 1 / 3, 0, "fraction")) == round(488 / 3)
    assert all(stratified(names, 1.0, 0, "fraction"))


def test_seeds_and_purposes_draw_differently():
    names = [f"0--E/{i}.jpg" for i in range(100)]
    draws = [
        tuple(stratified(names, 0.3, seed, purpose))
        for seed in (0, 1)
        for purpose in ("fraction", "holdout")
    ]
    assert len(set(draws)) == 4


def test_images_without_folders_are_drawn_at_random():
    """By seed and purpose, not every n-th of the sorted names."""
    names = [f"{i:03}.jpg" for i in range(100)]
    draws = {
        tuple(stratified(names, 0.2, seed, purpose))
        for seed in (0, 1)
        for purpose in ("fraction", "holdout")
    }
    assert len(draws) == 4 and all(sum(draw) == 20 for draw in draws)
    assert all(len(set(np.diff(np.flatnonzero(draw)))) > 3 for draw in draws)


def test_recorded_selections_stay():
    """Studies record the fingerprint of the images that these are (version 0.1.0 drew them)."""
    names = [f"{e}--E/{i}.jpg" for e in range(5) for i in range(7)] + ["9--Alone/0.jpg"]
    drawn = [name for name, flag in zip(names, stratified(names, 0.2, 3, "holdout")) if flag]
    expected = "0--E/2 1--E/0 1--E/2 2--E/6 3--E/2 3--E/4 4--E/2"
    assert [name.removesuffix(".jpg") for name in drawn] == expected.split()


def test_subset_reads_the_same_images(tiny_data):
    images = tiny_data.all_train
    subset = Subset(images, [3, 1], "two")
    assert [label.name for label in subset.labels] == [images.labels[3].name, images.labels[1].name]
    np.testing.assert_array_equal(subset.image(0), images.image(3))
    assert subset.fingerprint != Subset(images, [3, 2], "two").fingerprint
