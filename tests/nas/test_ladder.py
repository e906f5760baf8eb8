"""The ladder: which designs are trained, what is stored, and what a study's proxies are worth."""

import json
from dataclasses import replace

import helpers
import pytest

from detector.base.errors import UserError
from detector.config.detector import Neck, arch_hash
from nas import ladder as command
from nas.retraining.options import RetrainOptions
from nas.study.storage import Study
from nas.tabular import ladder
from trials.record import Cost, EpochResult, Status


@pytest.fixture(autouse=True)
def rough_intervals(monkeypatch):
    """Nothing here is about intervals, which take seconds to estimate well."""
    monkeypatch.setattr("analysis.statistics.ladder.RESAMPLES", 20)


def trial(number, width, *, status=Status.COMPLETED, lost=0.0):
    """A trial whose proxy shows the accuracy of its width, but for what is lost."""
    detector = replace(helpers.TINY_DETECTOR, neck=Neck(levels=(3, 4, 5), width=width))
    return helpers.trial_record(
        number,
        status=status,
        detector=detector,
        design=arch_hash(detector),
        cost=Cost(params=width, macs=width * 10**7),
        epochs=[
            EpochResult(
                epoch=epoch,
                losses={},
                lr=0.0,
                seconds=1.0,
                ap=helpers.equal_ap(width / 100 * epoch / 2 - lost),
            )
            for epoch in (1, 2)
        ],
    )


def rung(record, value, val=None):
    return ladder.Rung(
        params={},
        design=record.design,
        describe="tiny",
        family=ladder.family_of(record.detector),
        cost=record.cost,
        ap=helpers.equal_ap(value),
        val_ap=val and helpers.equal_ap(val),
        seconds=1.0,
    )


RECORDS = [trial(number, 8 + 8 * number) for number in range(8)]
LADDER = ladder.Ladder(
    made={}, rows=tuple(rung(r, 0.1 * n, 0.1 * (8 - n)) for n, r in enumerate(RECORDS))
)


def test_completed_trials_are_chosen_the_baseline_first():
    unfinished = trial(8, 80, status=Status.PRUNED)
    chosen = ladder.choose_designs([*RECORDS, unfinished], 5)
    assert chosen[0].number == 0 and len(chosen) == 5 and unfinished not in chosen
    with pytest.raises(UserError, match="has 8 completed trials"):
        ladder.choose_designs(RECORDS, 9)


@pytest.mark.parametrize("count", [3, 9])
def test_a_number_of_designs_that_cannot_be_judged_is_refused_before_any_training(count):
    with pytest.raises(UserError, match="give a number from 4 to that"):
        ladder.choose_designs(RECORDS, count)


def test_full_trainings_are_compared_on_val_if_it_is_there():
    verdict = ladder.judge(LADDER, RECORDS, helpers.manifest().objective)
    assert (verdict.designs, verdict.judged_on) == (8, "val")
    assert [look.accuracy.value for look in verdict.looks] == pytest.approx([-1, -1])
    on_holdout = replace(LADDER, rows=tuple(replace(r, val_ap=None) for r in LADDER.rows))
    verdict = ladder.judge(on_holdout, RECORDS, helpers.manifest().objective)
    assert verdict.judged_on == "hold-out" and verdict.looks[-1].accuracy.value == pytest.approx(1)
    assert verdict.deviation_at_end == pytest.approx(0, abs=1e-9)


def test_designs_that_the_study_lacks_are_left_out():
    verdict = ladder.judge(LADDER, RECORDS[:5], helpers.manifest().objective)
    assert verdict.designs == 5
    with pytest.raises(UserError, match="completed 3 of the ladder's 8 designs"):
        ladder.judge(LADDER, RECORDS[:3], helpers.manifest().objective)


def test_a_ladder_comes_back_equal_and_damage_is_one_line(tmp_path):
    path = tmp_path / "ladder.json"
    ladder.save(path, {"command": "x"}, LADDER.rows)
    assert ladder.Ladder.load(path) == replace(LADDER, made={"command": "x"})
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match="not a ladder"):
        ladder.Ladder.load(path)
    with pytest.raises(UserError, match="no such file"):
        ladder.Ladder.load(tmp_path / "none.json")


def test_the_command_compares_a_study_with_a_ladder(tmp_path, capsys):
    study = Study.create(tmp_path, "s", helpers.manifest())
    for record in RECORDS:
        study.add(record, {})
    path = tmp_path / "ladder.json"
    ladder.save(path, {}, LADDER.rows)
    args = command.make_parser().parse_args(
        ["--runs-dir", str(tmp_path), "--study", "s", "--ladder", str(path)]
    )
    result = command.run(args)
    assert json.loads(json.dumps(result))["designs"] == 8
    printed = capsys.readouterr().out
    assert "within families" in printed and max(map(len, printed.splitlines())) <= 80


def test_designs_are_trained_once(tmp_path, monkeypatch):
    """The ladder is written after each design, cheapest first; what is finished is not repeated."""
    study = Study.create(tmp_path, "s", helpers.manifest())
    for record in RECORDS:
        study.add(record, {})
    trained = []

    def train(task):
        record, options, jobs = task
        trained.append(options.trial)
        assert record.number == options.trial
        assert options.resume and (options.epochs, options.size, jobs) == (3, 64, 1)
        return rung(RECORDS[options.trial], 0.1)

    monkeypatch.setattr(ladder, "_train", train)
    arguments = ["--runs-dir", str(tmp_path), "--study", "s", "--designs", "4"]
    command.run(command.make_parser().parse_args([*arguments, "--epochs", "3", "--size", "64"]))
    stored = ladder.Ladder.load(tmp_path / "s" / "ladder.json")
    costs = [row.cost.macs for row in stored.rows]
    assert len(trained) == len(costs) == 4 and costs == sorted(costs)
    assert "--epochs 3 --size 64" in stored.made["command"]


def test_a_ladder_leaves_retrained_models_alone(tiny_study, monkeypatch):
    """A user's own model of trial 1 stays, and the ladder's is in a folder of its own."""
    monkeypatch.setattr("nas.retraining.candidate.WATCH_SIZE", 96)
    mine = tiny_study.folder / "retrained" / "r001"
    mine.mkdir(parents=True)
    (mine / "metrics.json").write_text("mine")
    options = RetrainOptions(
        study="tiny", runs_dir=tiny_study.folder.parent, epochs=1, size=64, eval_every=0
    )
    (found,) = ladder.train([tiny_study.records[1]], options, jobs=1)
    assert found.design == tiny_study.records[1].design and found.val_ap
    assert (mine / "metrics.json").read_text() == "mine"
    names = {path.name for path in (tiny_study.folder / ladder.FOLDER).iterdir()}
    assert names == {"r001", "r001.log"}
