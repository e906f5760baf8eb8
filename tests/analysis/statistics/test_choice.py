"""How sure the best trial is: against closed forms and simulation."""

import numpy as np
import pytest
from scipy.stats import norm

from analysis.statistics.choice import choose_from
from analysis.statistics.correlation import probability_of_best


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
def test_probability_of_two_is_closed_form(gap):
    """The difference of two scores is normal with a deviation of √2 times that of one."""
    expected = norm.cdf(gap / (0.3 * 2**0.5))
    assert probability_of_best(np.array([1.0, 1.0 + gap]), 0.3) == pytest.approx(expected, abs=1e-6)


def test_probability_of_equal_ones_and_of_one():
    assert probability_of_best(np.full(50, 1.7), 0.2) == pytest.approx(1 / 50, abs=1e-6)
    assert probability_of_best(np.array([1.7]), 0.2) == pytest.approx(1.0, abs=1e-6)
    assert probability_of_best(np.array([1.0, 2.0, 2.0]), 0.0) == 0.5


def test_probability_agrees_with_simulation():
    rng = np.random.default_rng(0)
    scores = rng.normal(1.5, 0.1, 30)
    drawn = scores + rng.normal(0, 0.05, (40_000, 30))
    share = (drawn.argmax(axis=1) == scores.argmax()).mean()
    assert probability_of_best(scores, 0.05) == pytest.approx(share, abs=0.01)


def test_choice_from_records(records):
    completed = records[:4]
    choice = choose_from(completed, "macs", (0.05, "between epoch 1 and epoch 2"))
    assert [r.number for r in choice.candidates] == [1, 0, 2]
    scores = np.array([r.score for r in completed])
    assert choice.probability == probability_of_best(scores, 0.05)
    assert (choice.considered, choice.tied) == (4, 2)
    verdict = choice.verdict(cost_is_measured=False, mark=" (=)")
    assert verdict.startswith(
        "the 2 best of 4 trials cannot be told apart at this budget, 2 of the"
    )
    assert "candidates (=) among them" in verdict and "epoch 2" in verdict
    sure = choose_from(completed, "macs", (0.001, "x"))
    assert sure.tied == 1 and sure.verdict(True).startswith("the first one stands out")
    unknown = choose_from(completed, "macs", (None, "no budget was compared"))
    assert (unknown.tied, unknown.probability) == (0, None)
    assert "unknown" in unknown.verdict(False)
