"""The functions of nas.api: what they return, and that they do what the commands do."""

import csv
import inspect
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.config.recipe import Evaluation
from nas import api, evaluate, retrain, search
from nas.retraining.options import RetrainOptions
from trials.hints import command
from trials.record import Status

HERE = {"tracking_uri": "none", "device": "cpu"}


def test_a_study_has_its_trials_best_and_front(tiny_study):
    study = api.open_study("tiny", tiny_study.folder.parent)
    assert api.open_study(runs_dir=tiny_study.folder.parent).name == "tiny"
    assert repr(study) == f"<study tiny in {tiny_study.folder}: 3 trials>"
    assert [record.number for record in study.records] == [0, 1, 2]
    assert study.best.number == 1
    assert [record.number for record in study.front] == [1]
    assert study.manifest.sampler == tiny_study.manifest.sampler
    table = study.trials
    assert list(table.index) == [0, 1, 2]
    assert table.loc[1, "score"] == pytest.approx(study.best.score)
    assert table.status.tolist() == ["completed", "completed", "infeasible"]
    page = study.report()
    assert page == tiny_study.folder / "report.html" and page.stat().st_size > 10_000


def test_the_table_is_that_of_trials_csv(tiny_study):
    from nas.study.summary import write_files

    write_files(tiny_study)
    with (tiny_study.folder / "trials.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    table = api.open_study("tiny", tiny_study.folder.parent).trials.reset_index()
    assert list(table.columns) == header and len(table) == len(rows)


def test_errors_are_those_of_the_commands(tmp_path, tiny_study):
    runs = tiny_study.folder.parent
    for call, message in (
        (lambda: api.open_study("gone", runs), "gone"),
        (lambda: api.search("gone.yaml"), "gone.yaml"),
        (lambda: api.search("quick", trials=0), "--trials 0: must be at least 1"),
        (lambda: api.retrain("tiny", runs_dir=runs, epochs=0), "--epochs 0: must be at least 1"),
        (lambda: api.load_model(tmp_path / "no.pt"), "no.pt"),
        (lambda: api.load_model(runs_dir=tmp_path), "contains no retrained model yet"),
    ):
        with pytest.raises(api.UserError, match=message):
            call()


def test_from_a_study_to_faces(tiny_study, tmp_path, capsys):
    runs = tiny_study.folder.parent
    study = api.open_study("tiny", runs)
    model = api.retrain(study, epochs=1, size=64, **HERE)
    assert model.path == tiny_study.folder / "best" / "weights.pt"
    assert model.config == study.best.detector

    page = study.report()
    page.write_text("older")
    result = api.evaluate(study, **HERE)
    assert "Search report: tiny" in page.read_text()  # with the retrained and evaluated model
    assert set(result["ap"]) == {"easy", "medium", "hard"}
    capsys.readouterr()
    options = ["--runs-dir", str(runs), "--study", "tiny", "--tracking-uri", "none"]
    same = evaluate.run(evaluate.make_parser().parse_args([*options, "--device", "cpu"]))
    assert same["ap"] == result["ap"] == api.evaluate(model, runs_dir=runs, **HERE)["ap"]

    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    settings = Evaluation(score_threshold=0.01)
    for given in (study, model.path, None):
        loaded = api.load_model(given, runs_dir=runs)
        faces = api.detect(loaded, image, settings=settings, device="cpu")
        assert faces == api.detect(loaded, tmp_path / "image.png", settings=settings, device="cpu")
        for face in faces:
            x1, y1, x2, y2 = face["bbox"]
            assert 0 <= x1 <= x2 <= 120 and 0 <= y1 <= y2 <= 90
    assert api.detect(loaded, image, confidence=1.0, device="cpu") == []


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((9, 9), np.uint8), r"uint8 \[height, width, 3\], not uint8 \[9, 9\]"),
        (np.zeros((9, 9, 3)), "not float64"),
        (np.zeros((0, 9, 3), np.uint8), r"\[0, 9, 3\]"),
        (Path("gone.jpg"), "gone.jpg"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(api.UserError, match=message):
        api.detect(None, image)


def test_a_search_gives_its_options_to_the_same_function_as_the_command(monkeypatch, tiny_study):
    runs, given = tiny_study.folder.parent, []
    monkeypatch.setattr(
        "nas.rounds.search_in_rounds.search_in_rounds",
        lambda options, dry_run=False: given.append(options) or {"study": "tiny"},
    )
    flags = {
        "trials": 7,
        "study": "tiny",
        "data": "synthetic",
        "fraction": 0.5,
        "holdout": 0.3,
        "select_on": "val",
        "sampler": "tpe",
        "scheduler": "none",
        "budget": "1G",
        "enqueue": "a.yaml",
        "from_study": "b:3",
        "rounds": 2,
        "full_recipe": "full",
        "max_failures": 0.2,
        "seed": 4,
        "device": "cpu",
        "concurrency": 2,
        "cpus_per_trial": 1,
        "gpus_per_trial": 0.0,
        "address": "auto",
        "tracking_uri": "none",
    }
    study = api.search("quick", runs_dir=runs, resume=True, inherit=True, **flags)
    assert study.name == "tiny" and study.records[1].status is Status.COMPLETED
    words = ["--space", "quick", "--runs-dir", str(runs), "--resume", "--inherit"]
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    search.run(search.make_parser().parse_args(words))
    assert replace(given[0], flags={}) == replace(given[1], flags={})
    hints = [command("nas.search", options.flags) for options in given]
    parsed = [search.make_parser().parse_args(shlex.split(hint)[3:]) for hint in hints]
    assert vars(parsed[0]) == vars(parsed[1]) and parsed[0].trials == 7


def test_every_flag_of_a_search_is_an_argument():
    flags = vars(search.make_parser().parse_args(["--space", "quick"]))
    arguments = set(inspect.signature(api.search).parameters)
    assert set(flags) - arguments == {"json_file", "dry_run", "plugin"}  # load_plugin
    assert arguments <= set(flags)


def test_every_flag_of_a_retrain_is_an_option():
    flags = vars(retrain.make_parser().parse_args([]))
    assert set(flags) - set(RetrainOptions.__dataclass_fields__) == {"json_file", "best", "plugin"}


def test_importing_it_is_light():
    code = (
        "import sys, nas.api; "
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'pandas'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.replace("'", '"')) == []
