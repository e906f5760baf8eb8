"""Rounds after a search: budgets, what is trained in each, and what is kept; with trainings that
are made up, and once with real ones."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import helpers
import pytest
import torch

from analysis.records.studies import load_study
from analysis.report import write_page
from detector.base.errors import UserError
from detector.config.detector import arch_hash
from detector.config.recipe import Recipe
from detector.weights.pretrained import Start, Teacher
from nas import search
from nas.engine.options import SearchOptions
from nas.models.model_folder import WEIGHTS
from nas.retraining.candidate import full_recipe
from nas.rounds.budgets import Budget, budgets, designs
from nas.rounds.search_in_rounds import Rounds, search_in_rounds
from nas.study.storage import Study
from trials.record import Cost, EpochResult
from trials.stored import read_metrics, read_progress, read_rounds


def test_budgets_grow_by_equal_factors():
    proxy, full = Budget(7, 96), Budget(100, 640)
    assert budgets(proxy, full, 2) == [proxy, full]
    assert budgets(proxy, full, 3) == [proxy, Budget(26, 256), full]  # √700, √(96·640) = 247.9
    assert budgets(proxy, full, 4)[1:3] == [Budget(17, 192), Budget(41, 352)]
    assert [designs(number, 4) for number in (2, 3, 4)] == [12, 6, 3]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rounds": 0}, "--rounds 0: must be from 1 to 6"),
        ({"rounds": 7}, "--rounds 7: must be from 1 to 6"),
        ({"full_recipe": "full"}, "--full-recipe: needs --rounds 2 or more"),
    ],
)
def test_options_that_are_refused(options, told):
    with pytest.raises(UserError, match=told):
        SearchOptions(space="quick", **options)


@pytest.fixture
def study(tmp_path):
    """The baseline and nine designs of equal cost, the larger the number the better the proxy."""
    study = Study.create(tmp_path, "s", helpers.manifest())
    for number in range(10):
        detector = replace(
            helpers.TINY_DETECTOR, neck=replace(helpers.TINY_DETECTOR.neck, width=8 * (number + 1))
        )
        accuracy = 0.3 + 0.02 * number
        study.add(
            helpers.trial_record(
                number,
                detector=detector,
                design=arch_hash(detector),
                cost=Cost(params=10**5, macs=10**9),
                recipe=Recipe(epochs=7, size=96),
                epochs=(
                    EpochResult(
                        epoch=7,
                        losses={},
                        lr=0.1,
                        seconds=1.0,
                        ap={"easy": accuracy, "medium": accuracy, "hard": accuracy},
                    ),
                ),
            ),
            {},
        )
    return study


@pytest.fixture
def trained(monkeypatch):
    """Trainings are made up: (trial, epochs, size) of each; accuracy rises with epochs, and trial 7
    is the best at every larger budget."""
    calls = []

    def retrain(candidate, options):
        number = options.trial
        assert options.resume and (options.tracking_uri == "none") == ("/rounds" in str(candidate))
        calls.append((number, options.epochs, options.size))
        accuracy = 0.5 + 0.001 * options.epochs + 0.01 * number + 0.1 * (number == 7)
        ap = {"easy": accuracy, "medium": accuracy, "hard": accuracy}
        metrics = helpers.metrics(
            candidate.config,
            candidate.title,
            ap=ap,
            accuracy_score=accuracy,
            folder=str(candidate.folder),
        )
        candidate.folder.mkdir(parents=True, exist_ok=True)
        metrics.write(candidate.folder / "metrics.json")
        (candidate.folder / WEIGHTS).write_text(candidate.title)
        return metrics

    monkeypatch.setattr("nas.retraining.retrain.retrain", retrain)
    return calls


def run(study, rounds=3):
    options = SearchOptions(
        space="quick", rounds=rounds, runs_dir=study.folder.parent, tracking_uri="sqlite:///x.db"
    )
    return Rounds(options, study).run()


def test_the_last_round_decides(study, trained, capsys):
    result = run(study)
    out = capsys.readouterr().out
    by_budget: dict[tuple[int, int], list[int]] = {}
    for number, *budget in trained:
        by_budget.setdefault(tuple(budget), []).append(number)
    (middle, second), (full, last) = by_budget.items()
    assert middle[0] < full[0] and middle[1] < full[1]
    assert len(second) == 7 and second[-1] == 0  # six designs, and the baseline
    assert len(last) == 4 and last[-1] == 0 and last[0] == 7
    assert result["best"] == 7
    assert result["probability_of_best"] > 0.9 and result["probability_beats_baseline"] > 0.99
    assert (study.folder / "best" / WEIGHTS).read_text() == "trial 7 of study s"
    assert "\nbest: trial 7, score " in out and "copied to " in out
    assert "next:\n  python -m nas.evaluate --study s" in out
    table = out[out.index("trial    proxy") :].splitlines()
    assert [int(line.split()[0]) for line in table[1 : 1 + len(second)]][:1] == [7]
    assert len({len(line) for line in table[: 1 + len(second)]}) == 1  # columns stand under heads


def test_full_trainings_of_an_earlier_run_compete(study, trained, capsys):
    """As of another number of rounds, or of nas.retrain --top."""
    run(study)
    rounds = Rounds(SearchOptions(space="quick", rounds=3, runs_dir=study.folder.parent), study)
    (record,) = (record for record in study.records if record.number == 1)
    candidate, options = rounds._candidate(record, 3)
    metrics = helpers.metrics(
        candidate.config, candidate.title, ap=helpers.equal_ap(0.95), accuracy_score=0.95
    )
    metrics = replace(metrics, recipe=full_recipe(candidate, options))
    teacher = Teacher(
        weights=Start(source="t.pt", title="t", part="detector", sha256="0"),
        describe="t",
        params=1,
        macs=1,
    )
    candidate.folder.mkdir()
    torch.save({"better": 1}, candidate.folder / WEIGHTS)
    for origin in (
        replace(metrics.origin, data_fingerprint="other images"),
        replace(metrics.origin, teacher=teacher),
    ):
        replace(metrics, origin=origin).write(candidate.folder / "metrics.json")
        assert run(study)["best"] == 7
    (candidate.folder / "metrics.json").write_text("{")
    capsys.readouterr()
    assert run(study)["best"] == 7
    assert "note: a full training is left out: " in capsys.readouterr().out
    metrics.write(candidate.folder / "metrics.json")
    result = run(study)
    assert result["best"] == 1 and result["scores"]["1"] > result["scores"]["7"]
    best = study.folder / "best" / WEIGHTS
    assert best.read_bytes() == (candidate.folder / WEIGHTS).read_bytes()
    assert re.search(r"\n +1 +0\.3200 +– +0\.9500 ", capsys.readouterr().out)
    (candidate.folder / WEIGHTS).write_text("not a checkpoint")
    assert run(study)["best"] == 7
    assert "weights.pt: is damaged" in capsys.readouterr().out


def test_what_is_stored_is_reported(study, trained):
    result = run(study)
    stored = read_rounds(study.folder)
    assert stored.to_dict() == result == json.loads((study.folder / "rounds.json").read_text())
    html = write_page([load_study(study.folder.parent, "s")]).read_text()
    assert "Trial 7 has the best score of the full trainings" in html
    (study.folder / "rounds.json").write_text("{")
    with pytest.raises(UserError, match="delete it, then run the search with --resume"):
        read_rounds(study.folder)


def test_the_same_designs_are_trained_when_it_is_resumed(study, trained, monkeypatch):
    run(study)
    first = list(trained)
    trained.clear()
    run(study)
    assert trained == first


def test_a_training_that_fails_is_left_out(study, trained, monkeypatch, capsys):
    import nas.retraining.retrain

    real = nas.retraining.retrain.retrain

    def failing(candidate, options):
        if options.trial == 7:
            raise UserError("loss not finite at epoch 3")
        return real(candidate, options)

    monkeypatch.setattr("nas.retraining.retrain.retrain", failing)
    assert run(study)["best"] != 7
    assert "note: trial 7 is left out of this round: loss not finite" in capsys.readouterr().out

    def none(candidate, options):
        raise UserError("no image")

    monkeypatch.setattr("nas.retraining.retrain.retrain", none)
    with pytest.raises(UserError, match="study s: no training of round 2 succeeded"):
        run(study)


def test_a_full_disk_stops_it(study, trained, monkeypatch):
    def full(candidate, options):
        raise UserError("x: cannot be written, the disk is full") from OSError(28, "No space")

    monkeypatch.setattr("nas.retraining.retrain.retrain", full)
    with pytest.raises(UserError, match="the disk is full"):
        run(study)


@pytest.fixture
def searched(study, monkeypatch):
    """A search that has ended, before its rounds, as the command starts it."""
    monkeypatch.setattr(
        "nas.rounds.search_in_rounds.start_search", lambda options, dry_run: {"study": "s"}
    )
    flags = {"space": "quick", "rounds": 3, "full_recipe": "short"}
    return SearchOptions(
        **flags, runs_dir=study.folder.parent, tracking_uri="sqlite:///x.db", flags=flags
    )


def test_ctrl_c_says_how_to_go_on(study, searched, monkeypatch, capsys):
    def stopped(candidate, options):
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.retraining.retrain.retrain", stopped)
    with pytest.raises(KeyboardInterrupt):
        search_in_rounds(searched)
    assert not read_progress(study.folder).ended
    (line,) = re.findall("Resume with:\n  (.*)", capsys.readouterr().out)
    words = shlex.split(line)[3:]
    args = search.make_parser().parse_args(words)
    assert (args.rounds, args.full_recipe, args.study, args.resume) == (3, "short", "s", True)


def test_a_second_run_at_once_is_refused(study, searched, trained):
    with (
        Study.open(study.folder.parent, "s").writing(),
        pytest.raises(UserError, match="another process"),
    ):
        search_in_rounds(searched)
    assert trained == []
    assert search_in_rounds(searched)["rounds"]["best"] == 7


def test_who_follows_the_search_waits_for_its_rounds(study, searched, trained, monkeypatch):
    states = []

    def run(self):
        states.append(read_progress(study.folder).ended)
        raise UserError("no training succeeded")

    monkeypatch.setattr(Rounds, "run", run)
    with pytest.raises(UserError):
        search_in_rounds(searched)
    assert states == [False] and read_progress(study.folder).ended


@pytest.mark.slow
def test_a_search_in_two_rounds(command, tmp_path, tiny_space):
    (tmp_path / "full.yaml").write_text("recipe: {epochs: 2, size: 64}\n")
    flags = (
        *("--space", str(tiny_space), "--trials", "3", "--data", "synthetic", "--fraction", "0.1"),
        *("--study", "s", "--tracking-uri", "none", "--rounds", "2", "--full-recipe", "full.yaml"),
    )
    code, out, err = command("nas.search", *flags)
    assert code == 0, err
    assert "\nround 2 of 2: 2 epochs at 64 px (full trainings), trials " in out
    best = read_rounds(tmp_path / "runs/s").best
    metrics = json.loads((tmp_path / "runs/s/best/metrics.json").read_text())
    assert metrics["title"] == f"trial {best} of study s"
    code, out, err = command("nas.search", *flags, "--resume")
    assert code == 0, err
    assert out.count("has already been retrained") >= 2
    assert Path(metrics["folder"]) == Path("runs/s/best")
    options = SearchOptions(
        space=str(tiny_space),
        rounds=2,
        full_recipe=str(tmp_path / "full.yaml"),
        runs_dir=tmp_path / "runs",
    )
    rounds = Rounds(options, Study.open(tmp_path / "runs", "s"))
    trained = set(map(int, read_rounds(tmp_path / "runs/s").rounds[-1].accuracy))
    first = min(trained)  # as if this run had trained it alone
    rounds._metrics[-1][first] = read_metrics(tmp_path / f"runs/s/retrained/r{first:03d}")
    assert set(rounds._earlier_trainings()) == trained - {first} != set()
