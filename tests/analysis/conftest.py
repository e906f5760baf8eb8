"""Records that several tests read."""

import helpers
import pytest

from trials.record import Cost, EpochResult, Status, TrialRecord


def record(
    number: int, accuracy: float, macs: float, status: Status = Status.COMPLETED, **changes
) -> TrialRecord:
    epoch = EpochResult(
        epoch=1, losses={"total": 2.0}, lr=0.1, seconds=1.5, ap=helpers.equal_ap(accuracy)
    )
    return helpers.trial_record(
        number,
        status=status,
        params={"width": 8 * number},
        cost=Cost(params=40_000 * (number + 1), macs=int(macs * 1e9)),
        speed_score=1 - macs / 10,
        rung=1,
        epochs=(epoch,),
    ).evolve(**changes)


@pytest.fixture
def records():
    return [
        record(0, 0.50, 1.0),
        record(1, 0.55, 1.5),
        record(2, 0.40, 0.5),
        record(3, 0.45, 2.0),
        record(4, 0.70, 0.1, Status.PRUNED, reason="not promoted"),
        record(5, 0.0, 9.0, Status.INFEASIBLE, epochs=(), reason="too many parameters"),
    ]
