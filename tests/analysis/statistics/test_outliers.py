"""Curves that would flatten all others in a chart."""

import helpers
import numpy as np
import pytest

from analysis.statistics.outliers import loss_limit
from trials.record import EpochResult


def curve(*losses: float):
    return helpers.trial_record(
        epochs=tuple(
            EpochResult(epoch=epoch, losses={"total": loss}, lr=0.1, seconds=1.0)
            for epoch, loss in enumerate(losses, 1)
        )
    )


def test_a_loss_that_grew_leaves_the_chart():
    usual = [curve(9.0 + n / 10, 5.0, 3.0) for n in range(10)]
    assert loss_limit(usual) == (None, 0)
    limit, beyond = loss_limit([*usual, curve(120.0, 173_290.0), curve(9.0, 1e9)])
    assert limit == pytest.approx(1.05 * 9.9) and beyond == 2


def test_losses_that_are_no_numbers_or_missing_do_not_count():
    usual = [curve(9.0, 3.0)] * 5
    assert loss_limit([*usual, curve(np.nan, np.inf), curve()]) == (None, 0)
    limit, beyond = loss_limit([*usual, curve(9.0, np.inf), curve(8.0, 1e6)])
    assert limit == pytest.approx(1.05 * 9.0) and beyond == 1


@pytest.mark.parametrize(
    "losses", [[], [1.0], [1.0, 1e9], [5.0, 5.0, 5.0, 9.9], [0.0] * 5, [0.0] * 5 + [9.0]]
)
def test_few_or_similar_curves_are_all_shown(losses):
    assert loss_limit([curve(loss) for loss in losses]) == (None, 0)
