"""The score in closed form, and violations of caps."""

import math

import helpers
import numpy as np
import pytest

from detector.base.errors import ConfigError
from trials.constraints import Constraints
from trials.objective import ANCHORS, Objective
from trials.record import Cost, EpochResult, TrialRecord, combined_score


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


BUILT_IN = "2 * accuracy + clip(1 - log10(macs / 1e8) / 3, 0, 1)"


def record_with(ap: dict[str, float], given: Cost, number: int = 1) -> TrialRecord:
    epoch = EpochResult(epoch=1, losses={}, lr=0.1, seconds=1.0, ap=ap)
    return helpers.trial_record(number, cost=given, epochs=(epoch,))


@pytest.mark.parametrize("macs", [5e7, 1e8, 3.3e8, 1.03e9, 7.7e10, 1e11, 1e12])
def test_an_expression_equal_to_the_built_in_score_has_its_values(macs):
    ap, given = {"easy": 0.8486, "medium": 0.8182, "hard": 0.6429}, cost(int(macs))
    built_in, same = Objective(), Objective(score=BUILT_IN)
    assert same.score_of(ap, given) == pytest.approx(built_in.score_of(ap, given), abs=1e-12)
    records = [one.applied_to(record_with(ap, given)) for one in (built_in, same)]
    assert records[0].score == built_in.score_of(ap, given) == records[0].scores()[1]
    assert records[1].score == same.score_of(ap, given) == records[1].scores()[1]
    assert records[0].speed_score == records[1].speed_score
    accuracy, costs = np.linspace(0, 1, 12).reshape(4, 3), [given, cost(10**9), cost(10**10)]
    expected = [[built_in.score_of(a, c) for a, c in zip(row, costs)] for row in accuracy]
    for objective in (built_in, same):
        assert objective.scores(accuracy, costs) == pytest.approx(np.array(expected), abs=1e-12)
    mean, std = np.full(3, 0.5), np.array([0.01, 0.1, 0.2])
    for a, b in zip(built_in.normal_scores(mean, std, costs), same.normal_scores(mean, std, costs)):
        assert a == pytest.approx(b, abs=1e-12)
    assert records[1].score_slope(0.7) == pytest.approx(2, abs=1e-12)


def test_a_predicted_accuracy_counts_for_each_level():
    objective = Objective(score="0.2 * easy + 0.3 * medium + 0.5 * hard")
    assert objective.score_of({"easy": 1, "medium": 0.5, "hard": 0}, cost()) == pytest.approx(0.35)
    assert objective.score_of(0.4, cost()) == pytest.approx(0.4)


def test_an_undefined_score_is_the_lowest_one():
    objective = Objective(score="log10(accuracy) - macs / 1e12")
    dead = objective.applied_to(record_with(helpers.equal_ap(0.0), cost()))
    assert dead.score == -1e6
    mean, std = objective.normal_scores(np.array([-0.2, 0.5]), np.array([0.3, 0.1]), [cost()] * 2)
    assert np.isfinite(mean).all() and (np.abs(mean) < 10).all() and (std > 0).all()


def test_an_expression_may_need_the_latency():
    objective = Objective(score="accuracy - latency_ms / 1000")
    assert objective.uses_latency and objective.metric == "macs"
    assert objective.unmeasured(cost()) == "latency_ms"
    assert objective.unmeasured(cost(latency_ms=5.0)) is None
    assert objective.score_of(0.5, cost(latency_ms=100.0)) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="latency_ms was not measured"):
        objective.score_of(0.5, cost())
    assert math.isfinite(objective.applied_to(record_with(helpers.equal_ap(0.5), cost())).score)


def test_expressions_are_stored_and_others_leave_no_trace():
    with_score = Objective(score="accuracy - params / 1e8")
    assert Objective.from_dict(with_score.to_dict()) == with_score
    assert Objective().to_dict() == {"metric": "macs", "best": 0.1e9, "worst": 100e9}
    record = with_score.applied_to(record_with(helpers.equal_ap(0.5), cost()))
    assert TrialRecord.from_dict(record.to_dict()) == record
    assert "formula" not in Objective().applied_to(record).to_dict()


def test_a_wrong_expression_names_its_key():
    with pytest.raises(ConfigError, match=r"^objective\.score: position 12, at 'mac': mac is unkn"):
        Objective(score="accuracy - mac")
    with pytest.raises(ConfigError, match=r"^objective\.score: falls from"):
        Objective(score="-accuracy")
