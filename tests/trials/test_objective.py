"""The score in closed form, and violations of caps."""

import pytest

from detector.base.errors import ConfigError
from trials.constraints import Constraints
from trials.objective import ANCHORS, Objective
from trials.record import Cost, combined_score


def cost(macs=10**9, params=10**6, latency_ms=None):
    return Cost(params=params, macs=macs, latency_ms=latency_ms)


@pytest.mark.parametrize(
    "macs, expected", [(0.1e9, 1), (1e9, 2 / 3), (10e9, 1 / 3), (100e9, 0), (1e6, 1), (1e12, 0)]
)
def test_speed_score_of_macs(macs, expected):
    assert Objective().speed_score(cost(int(macs))) == pytest.approx(expected, abs=1e-12)


def test_half_the_macs_are_worth_five_points_of_mean_ap():
    objective = Objective()
    gain = objective.speed_score(cost(500_000_000)) - objective.speed_score(cost(10**9))
    assert gain == pytest.approx(0.1, abs=0.001)
    assert combined_score(0.55, 0.5) - combined_score(0.5, 0.5) == pytest.approx(0.1)


def test_published_scores():
    """RetinaFace mobile0.25 on a third of train: 84.86 / 81.82 / 64.29 at 1.03 G scores 2.20."""
    speed = Objective().speed_score(cost(1_029_700_000))
    assert round(combined_score((0.8486 + 0.8182 + 0.6429) / 3, speed), 2) == 2.20


@pytest.mark.parametrize("metric", ANCHORS)
def test_the_anchors_of_each_metric(metric):
    objective = Objective(metric=metric)
    best, worst = ANCHORS[metric]
    values = {"macs": 1, "params": 1, "latency_ms": 1.0}
    middle = type(best)((best * worst) ** 0.5)
    for value, expected in ((best, 1), (middle, 0.5), (worst, 0)):
        score = objective.speed_score(Cost(**values | {metric: value}))
        assert score == pytest.approx(expected, abs=1e-6)
    assert Objective.from_dict(objective.to_dict()) == objective


def test_a_metric_that_was_not_measured_has_no_score():
    with pytest.raises(ValueError, match="latency_ms was not measured"):
        Objective(metric="latency_ms").speed_score(cost())


@pytest.mark.parametrize(
    "wrong", [{"metric": "flops"}, {"best": 0.0}, {"best": 2e11}, {"worst": 1.0}]
)
def test_invalid_objectives(wrong):
    with pytest.raises(ConfigError, match=r"^objective\."):
        Objective(**wrong)


@pytest.mark.parametrize(
    "caps, given, reason",
    [
        ({}, cost(params=45_000_000), None),
        ({}, cost(params=45_000_001), "45,000,001 parameters over max_params 45,000,000"),
        ({"max_params": None}, cost(params=10**9), None),
        ({"max_macs": 10**9}, cost(), None),
        (
            {"max_macs": 10**9 - 1},
            cost(),
            "1,000,000,000 MACs at 640×640 over max_macs 999,999,999",
        ),
        (
            {"min_macs": 2 * 10**9},
            cost(),
            "1,000,000,000 MACs at 640×640 under min_macs 2,000,000,000",
        ),
    ],
)
def test_violations(caps, given, reason):
    assert Constraints(**caps).violation(given) == reason
    assert (Constraints(**caps).violated_cap(given) is None) == (reason is None)


@pytest.mark.parametrize(
    "wrong", [{"max_params": 0}, {"max_macs": -1}, {"min_macs": 2, "max_macs": 1}]
)
def test_invalid_constraints(wrong):
    with pytest.raises(ConfigError, match=r"^constraints\."):
        Constraints(**wrong)


def test_the_cap_on_latency_applies_once_it_is_measured():
    caps = Constraints(max_latency_ms=20)
    assert caps.violation(cost()) is None
    assert caps.violation(cost(latency_ms=19.9)) is None
    assert caps.violation(cost(latency_ms=20.06)) == ("20.1 ms at 640×640 over max_latency_ms 20.0")
