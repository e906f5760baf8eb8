"""Statistics of replays against closed forms."""

import itertools
import math

import numpy as np
import pytest

from analysis.figures.png.replays import replay_png
from analysis.statistics import replays
from analysis.statistics.pareto import hypervolume_2d
from analysis.statistics.replays import Play, Truth
from trials.record import combined_score


def truth_of(accuracy, speed, epochs) -> Truth:
    """With the built-in score."""
    return Truth(
        accuracy=accuracy,
        speed=speed,
        scores=combined_score(accuracy, speed[:, None]),
        epochs=epochs,
    )


# Four designs, measured at epochs 2 and 6; their scores at 6: 1.0, 1.3, 0.9, 1.2.
TRUTH = truth_of(
    accuracy=np.array([[0.1, 0.2], [0.1, 0.4], [0.3, 0.3], [0.0, 0.3]]),
    speed=np.array([0.6, 0.5, 0.3, 0.6]),
    epochs=(2, 6),
)
# 3 and 0 reach the rung, 0 the end, 1 the rung, 3 the end, then 1 the end.
PLAY = Play(
    spent=np.array([2, 4, 8, 10, 14, 18]),
    row=np.array([3, 0, 0, 1, 3, 1]),
    epoch=np.array([2, 2, 6, 2, 6, 6]),
)


def test_only_completed_trials_count():
    assert replays.best_so_far(PLAY, TRUTH).tolist() == pytest.approx(
        [-np.inf, -np.inf, 1.0, 1.0, 1.2, 1.3]
    )
    expected = [
        0,
        0,
        0.2 * 0.6,
        0.2 * 0.6,
        0.3 * 0.6,
        hypervolume_2d(np.array([[0.3, 0.6], [0.4, 0.5]])),
    ]
    assert replays.hypervolume_so_far(PLAY, TRUTH).tolist() == pytest.approx(expected)


def test_the_pick_is_the_best_of_those_trained_longest():
    # At the rung 3 has 0.6 and 0 has 0.8: 0 leads, though 3 is better in the end.
    assert replays.picks(PLAY, TRUTH).tolist() == pytest.approx([1.2, 1.0, 1.0, 1.0, 1.2, 1.3])


def test_epochs_until_a_score():
    best = replays.best_so_far(PLAY, TRUTH)
    assert [replays.spent_until(PLAY, best, goal) for goal in (0.9, 1.0, 1.1, 1.25, 1.4)] == [
        8,
        8,
        14,
        18,
        math.inf,
    ]
    on_grid = replays.on_grid(PLAY, best, np.array([0, 7.9, 8, 13, 14, 100]))
    assert on_grid.tolist() == pytest.approx([-np.inf, -np.inf, 1.0, 1.0, 1.2, 1.3])


def test_medians_with_intervals():
    one = replays.median(np.full(30, 7.0))
    assert (one.value, one.low, one.high) == (7, 7, 7)
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    spread = replays.median(values)
    # The median of N normal values has standard deviation √(π / 2N).
    assert spread.high - spread.low == pytest.approx(2 * 1.96 * math.sqrt(math.pi / 800), rel=0.25)
    some = replays.median(np.array([1.0, 2.0, 3.0, math.inf, math.inf]))
    assert some.value == 3 and some.high == math.inf and some.text(0) == "3 (1–never)"
    assert replays.median(np.array([1.0, math.inf, math.inf])).text(0) == "never (1–never)"
    curves = replays.medians(np.stack([np.arange(4.0)] * 5))
    assert curves.value.tolist() == curves.low.tolist() == [0, 1, 2, 3]


def test_best_of_random_draws_equals_counting():
    scores = [0.3, 0.9, 0.1, 0.7, 0.5, 0.2]
    for draws, share in itertools.product((1, 2, 3, 5), (0.25, 0.5, 0.9)):
        best = sorted(
            (max(chosen) for chosen in itertools.combinations(scores, draws)), reverse=True
        )
        assert (
            replays.best_of_draws(np.array(scores), draws, share)
            == best[math.ceil(share * len(best) - 1e-9) - 1]
        )


def test_a_ranking_is_a_search_in_that_order():
    play = replays.in_order([2, 0, 1, 3], 6)
    assert play.spent.tolist() == [6, 12, 18, 24]
    assert replays.best_so_far(play, TRUTH).tolist() == pytest.approx([0.9, 1.0, 1.3, 1.3])


def test_how_well_a_rung_predicts():
    rng = np.random.default_rng(1)
    final = rng.random(60)
    truth = truth_of(
        accuracy=np.stack([rng.random(60), final**3, final], axis=1),
        speed=np.zeros(60),
        epochs=(1, 2, 3),
    )
    noise, monotone = replays.rungs(truth)
    assert monotone.kendall.value == monotone.spearman.value == pytest.approx(1)
    assert monotone.lost == 0
    assert noise.kendall.low < 0 < noise.kendall.high
    assert replays.top_k_regret(np.array([3.0, 2, 1]), np.array([0.5, 0.6, 1.0]), 2) == 0.4


def test_outcome_and_figure_of_many_searches(tmp_path):
    random = [replays.in_order(order, 6) for order in itertools.permutations(range(4))]
    one = replays.outcome([PLAY] * 3, TRUTH, goal=1.3, percentile=1.2, at=14)
    assert (one.to_goal.value, one.to_percentile.value) == (18, 14)
    assert (one.score.value, one.pick.value) == pytest.approx((1.2, 1.3))
    assert one.hypervolume.value == pytest.approx(0.18)
    grid = np.linspace(0, 24, 50)
    curves = {
        "rungs": replays.curves([PLAY], TRUTH, grid),
        "random": replays.curves(random, TRUTH, grid),
    }
    path = replay_png(
        grid,
        [("full", curves), ("halving", curves)],
        tmp_path / "replay.png",
        goals={"goal": 1.3},
        title="four designs",
    )
    assert path.read_bytes().startswith(b"\x89PNG")
