"""Promotions at rungs: exact cases, and a property of random studies."""

import random
from dataclasses import replace

import pytest

from detector.config.presets import load_preset
from nas.engine import halving
from trials.record import Cost, EpochResult, Status, TrialRecord

DESIGN, RECIPE = load_preset("retinaface_mobile025")

RUNGS = (1, 3, 9)


def record(number, accuracies, status=Status.PAUSED, speed=0.5):
    """A trial whose accuracy after epochs 1, 3, 9 is as given."""
    epochs = []
    for epoch in range(1, max([RUNGS[i] for i in range(len(accuracies))], default=0) + 1):
        ap = None
        if epoch in RUNGS:
            value = accuracies[RUNGS.index(epoch)]
            ap = {"easy": value, "medium": value, "hard": value}
        epochs.append(EpochResult(epoch=epoch, losses={}, lr=0.1, seconds=1.0, ap=ap))
    return TrialRecord(
        number=number,
        status=status,
        design=f"d{number}",
        detector=DESIGN,
        recipe=RECIPE,
        params={},
        cost=Cost(params=1, macs=1),
        speed_score=speed,
        epochs=tuple(epochs),
    )


def test_nothing_is_promoted_before_eta_results():
    records = [record(1, [0.5]), record(2, [0.4])]
    assert halving.promotable(records, RUNGS, eta=3) is None
    assert halving.promotable([*records, record(3, [0.1])], RUNGS, eta=3).number == 1


def test_promotion_is_by_score_not_by_accuracy():
    records = [record(1, [0.5], speed=0.1), record(2, [0.4], speed=0.9), record(3, [0.1])]
    assert halving.promotable(records, RUNGS, eta=3).number == 2


def test_the_baseline_is_not_ranked_and_trains_in_full():
    baseline = record(0, [0.9], status=Status.RUNNING)
    records = [baseline, *(record(i, [0.1 * i]) for i in (1, 2, 3))]
    assert halving.promotable(records, RUNGS, eta=3).number == 3
    assert halving.target_epoch(baseline, RUNGS) == 9


def test_with_promote_front_trials_on_the_front_are_promoted_too():
    records = [
        record(1, [0.5], speed=0.5),
        record(2, [0.6], speed=0.2),  # scores 1.5, 1.4
        record(3, [0.1], speed=0.9),
        record(4, [0.1], speed=0.8),
    ]  # 1.1, 1.0 and dominated
    promoted = []
    while (chosen := halving.promotable(records, RUNGS, 4, "front")) is not None:
        promoted.append(chosen.number)
        records[chosen.number - 1] = record(
            chosen.number, [chosen.accuracy_score, 0.9], Status.RUNNING, chosen.speed_score
        )
    assert promoted == [1, 2, 3]
    paused = [r.evolve(status=Status.PAUSED) for r in records]
    assert halving.promotable(paused[:3], RUNGS, 4, "front") is None  # too few to compare
    equally_fast = [record(1, [0.5]), record(2, [0.6]), record(3, [0.1]), record(4, [0.1])]
    assert halving.promotable(equally_fast, RUNGS, 4).number == 2


def test_the_front_is_that_of_the_rung():
    """A promoted trial is compared by its result at the rung, not by later ones."""
    records = [record(1, [0.5, 0.1], Status.COMPLETED), record(2, [0.4]), record(3, [0.3])]
    assert halving.promotable(records, RUNGS, 3, "front") is None
    assert halving.promotable(records, RUNGS, 3, "score") is None


def test_higher_rungs_first():
    low = [record(i, [0.9]) for i in range(1, 7)]
    high = [record(i, [0.95, 0.2]) for i in range(7, 10)]
    assert halving.promotable([*low, *high], RUNGS, eta=3).number == 7


def test_results_of_other_studies_take_no_epochs():
    """5 of 8 designs are new: 1 epoch each, a third 2 more, a ninth 6 more, and the baseline."""
    per_design = 1 + 2 / 3 + 6 / 9
    known = [replace(record(n, [0.5, 0.5, 0.5]), source="study a, trial 1") for n in (1, 2, 3)]
    assert halving.epochs_of_search([], 8, RUNGS, 3) == pytest.approx(9 + 8 * per_design)
    assert halving.epochs_of_search(known, 8, RUNGS, 3) == pytest.approx(9 + 5 * per_design)
    known.append(replace(record(0, [0.5, 0.5, 0.5]), source="study a, trial 0"))
    assert halving.epochs_of_search(known, 8, RUNGS, 3) == pytest.approx(5 * per_design)
    assert halving.epochs_to_promote(known, 8, 5, RUNGS, 3) == pytest.approx(5 * (per_design - 1))


def test_promoted_trials_keep_their_rank_at_the_rung():
    completed = [record(i, [0.9, 0.9, 0.9], status=Status.COMPLETED) for i in (1, 2)]
    paused = [record(i, [0.5]) for i in (3, 4, 5, 6)]
    assert halving.promotable([*completed, *paused], RUNGS, eta=3) is None


def test_ties_go_to_the_earlier_trial():
    assert halving.promotable([record(i, [0.5]) for i in (3, 1, 2)], RUNGS, eta=3).number == 1


def test_a_small_search_still_trains_one_design_in_full():
    records = [
        record(0, [0.5, 0.5, 0.5], status=Status.COMPLETED),
        record(1, [0.3]),
        record(2, [0.4]),
    ]
    assert halving.promotable(records, RUNGS, eta=3) is None
    assert halving.last_promotion(records, RUNGS).number == 2
    records[2] = record(2, [0.4, 0.1])
    assert halving.last_promotion(records, RUNGS).number == 2  # its highest rung counts
    records[2] = record(2, [0.4, 0.1, 0.1], status=Status.COMPLETED)
    assert halving.last_promotion(records, RUNGS) is None


@pytest.mark.parametrize(
    ("trained", "reached", "target"), [(0, -1, 1), (1, 0, 3), (2, 0, 3), (3, 1, 9), (9, 2, 9)]
)
def test_target_epochs(trained, reached, target):
    epochs = tuple(
        EpochResult(epoch=e, losses={}, lr=0.1, seconds=1.0) for e in range(1, trained + 1)
    )
    trial = record(1, []).evolve(epochs=epochs)
    assert halving.rung_reached(trial, RUNGS) == reached
    assert halving.target_epoch(trial, RUNGS) == target


@pytest.mark.parametrize("eta", [1.5, 2, 3])
def test_a_complete_search_promotes_at_least_one_in_eta_at_each_rung(eta):
    """Of n trials at a rung at least ⌊n/η⌋ are promoted."""
    rng = random.Random(0)
    records = [record(i, [rng.random()]) for i in range(1, 28)]
    while (chosen := halving.promotable(records, RUNGS, eta)) is not None:
        accuracies = [e.ap["easy"] for e in chosen.epochs if e.ap] + [rng.random()]
        status = Status.COMPLETED if len(accuracies) == 3 else Status.PAUSED
        records[chosen.number - 1] = record(chosen.number, accuracies, status)
    reached = [sum(halving.rung_reached(r, RUNGS) >= k for r in records) for k in range(3)]
    assert reached[0] == 27
    assert reached[1] >= int(27 / eta)
    assert reached[2] >= int(reached[1] / eta)
