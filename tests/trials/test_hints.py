"""Commands to continue with: pasted into a shell, they reach the same study, folder and store."""

import argparse
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from trials import hints
from trials.hints import command, detect_command, given_flags, retrain_command, ui_command

ODD = Path("my runs/it's $HOME")
STORE = "sqlite:////tmp/it's mine/ml flow.db"


def parsed(line: str) -> argparse.Namespace:
    """The line as the shell and the named command read it."""
    python, dash_m, module, *words = shlex.split(line)
    assert (python, dash_m) == ("python", "-m")
    return import_module(module).make_parser().parse_args(words)


def test_every_word_survives_a_shell():
    line = command(
        "nas.search", {"runs_dir": ODD, "study": "-a", "trials": 3, "tracking_uri": "a;b|c"}
    )
    echo = f"{sys.executable} -c 'import sys; print(sys.argv[1:])' {line}"
    out = subprocess.run(["sh", "-c", echo], capture_output=True, text=True, check=True).stdout
    assert eval(out) == shlex.split(line)
    args = parsed(line + " --space quick")
    assert (args.runs_dir, args.study, args.trials) == (ODD, "-a", 3)


def test_defaults_are_left_out():
    flags = {"study": None, "runs_dir": Path("runs"), "tracking_uri": hints.DEFAULT_TRACKING_URI}
    assert command("nas.evaluate", {**flags, "device": "auto"}) == "python -m nas.evaluate"


@pytest.mark.parametrize("module", ["nas.search", "nas.retrain", "nas.evaluate", "nas.sync"])
def test_the_given_flags_are_those_that_give_the_same_command_again(module):
    parser = import_module(module).make_parser()
    words = ["--runs-dir", str(ODD), "--tracking-uri", STORE, "--seed", "7", "--json", "r.json"]
    words += {
        "nas.search": ["--space", "quick", "--trials", "9", "--inherit", "--fraction", "0.5"],
        "nas.retrain": ["--top", "2", "--with-holdout", "--batch-size", "auto"],
    }.get(module, [])
    args = parser.parse_args(words)
    flags = given_flags(parser, args)
    assert "json_file" not in flags and "study" not in flags
    again = parsed(command(module, flags))
    again.json_file = args.json_file
    assert vars(again) == vars(args)


def test_the_resume_command_of_a_search():
    from nas.engine.options import SearchOptions
    from nas.engine.run_search import resume_command
    from nas.search import make_parser

    words = ["--space", "my space.yaml", "--runs-dir", str(ODD), "--tracking-uri", STORE]
    words += ["--budget", "1G", "--max-failures", "0.3", "--data", "a b", "--fraction", "0.3"]
    words += ["--sampler", "tpe", "--enqueue", "gone.yaml", "--device", "cpu", "--trials", "5"]
    args = make_parser().parse_args(words)
    options = SearchOptions.of(args, given_flags(make_parser(), args))
    again = parsed(resume_command(options, "s-001", 12))
    assert (again.study, again.trials, again.resume) == ("s-001", 12, True)
    kept = ("space", "runs_dir", "tracking_uri", "budget", "max_failures", "data")
    assert all(getattr(again, key) == getattr(args, key) for key in (*kept, "device"))
    assert again.enqueue is None and again.sampler is None  # the study has them
    assert again.fraction == 1


def hints_in(text: str) -> list[str]:
    """The commands that an output advises."""
    found = [line.strip() for line in text.splitlines() if line.startswith("  python -m ")]
    return [line.split("  # ")[0] for line in found]


def test_hints_at_the_end_of_a_search(tiny_study, capsys, tmp_path, monkeypatch):
    from nas.engine.options import SearchOptions
    from nas.engine.run_search import context
    from nas.study.summary import summarise
    from nas.study.tracker_view import StudyView
    from trials.tracking.tracker import NullTracker

    for uri in (STORE, "none", "http://127.0.0.1:5000", hints.MLFLOW_DEFAULT):
        options = SearchOptions(
            space="quick", runs_dir=tiny_study.folder.parent, tracking_uri=uri, flags={}
        )
        flags = context(options, tiny_study)
        summarise(tiny_study, StudyView(tiny_study, NullTracker(), "macs"), flags)
        out = capsys.readouterr().out
        lines = hints_in(out)
        modules = ["nas.retrain", "nas.evaluate"] + ([] if uri == "none" else ["nas.ui"])
        assert [shlex.split(line)[2] for line in lines] == modules
        assert all(parsed(line).tracking_uri == uri for line in lines[2:])
        for line in lines[:2]:
            args = parsed(line)
            assert (args.study, args.tracking_uri) == ("tiny", uri)
            assert args.runs_dir == tiny_study.folder.parent


def test_where_the_best_are_tied_a_search_and_choose_suggest_several(generated_study, capsys):
    """As comments of a shell, so that the lines can be pasted."""
    from analysis import choose
    from analysis.records.studies import load_study
    from detector.base import cli
    from nas.study.storage import Study
    from nas.study.summary import summarise
    from nas.study.tracker_view import StudyView
    from trials.tracking.tracker import NullTracker

    for count in range(30, 100, 10):  # which have ties depends on what the flagship's draws are
        folder = generated_study(f"made-up-{count}", count)
        tied = load_study(folder.parent, folder.name).choice.tied
        if tied > 1:
            break
    assert tied > 1
    study = Study.open(folder.parent, folder.name)
    flags = {"study": folder.name, "runs_dir": folder.parent, "tracking_uri": "none"}
    summarise(study, StudyView(study, NullTracker(), "macs"), flags)
    best, top, _ = hints_in(out := capsys.readouterr().out)
    assert parsed(best).best and parsed(top).top == min(tied, hints.MAX_TOP)
    assert f"{top}  # {tied} are tied: the hold-out chooses" in out
    assert cli.main(choose.make_parser(), choose.run, ["--runs-dir", str(folder.parent)]) == 0
    _, top = hints_in(capsys.readouterr().out)
    assert parsed(top).top == min(tied, hints.MAX_TOP)


@pytest.mark.parametrize("module", ["analysis.report", "analysis.choose", "nas.rescore"])
def test_hints_of_the_commands_that_read_a_study(module, generated_study, tmp_path, capsys):
    from detector.base import cli

    folder = generated_study("made up".replace(" ", "-"), 40)
    odd = tmp_path / ODD
    odd.mkdir(parents=True)
    folder.rename(odd / folder.name)
    command_module = import_module(module)
    flags = ["--objective", "quick"] if module == "nas.rescore" else []
    words = ["--runs-dir", str(odd), *flags]
    assert cli.main(command_module.make_parser(), command_module.run, words) == 0
    lines = hints_in(capsys.readouterr().out)
    assert lines
    for line in lines:
        args = parsed(line)
        assert args.study == folder.name and args.runs_dir == odd


def test_hints_about_what_is_missing(tmp_path):
    from detector.base.errors import UserError
    from nas.models.model_folder import last_retrained
    from trials.folders import study_or_newest

    for function in (lambda: study_or_newest(tmp_path, None), lambda: last_retrained(tmp_path)):
        with pytest.raises(UserError) as error:
            function()
        line = str(error.value).split("run ")[-1].split(" first")[0].split(", or")[0]
        assert parsed(line).runs_dir == tmp_path


def test_sync_and_retrain_hints(tmp_path, capsys):
    import helpers

    from nas.retraining.options import RetrainOptions
    from nas.retraining.summary import print_next
    from nas.tracking.runs import sync_command

    args = parsed(sync_command("s", ODD, STORE))
    assert (args.study, args.runs_dir, args.tracking_uri) == ("s", ODD, STORE)
    odd, older = (
        tmp_path / ODD.name / "s" / "best",
        tmp_path / ODD.name / "s" / "retrained" / "r001",
    )
    for finished, folder in enumerate((older, odd)):
        folder.mkdir(parents=True)
        metrics = helpers.metrics(helpers.study_detector(8), finished=finished)
        metrics.write(folder / "metrics.json")
    options = RetrainOptions(runs_dir=tmp_path / ODD.name, tracking_uri=STORE, device="cpu")
    for folder, checkpoint in ((odd, None), (older, older / "weights.pt")):
        print_next(options, folder)
        (line,) = hints_in(capsys.readouterr().out)
        args = parsed(line)
        assert (args.runs_dir, args.tracking_uri) == (options.runs_dir, STORE)
        assert (args.device, args.checkpoint) == ("cpu", checkpoint)


@pytest.mark.parametrize("value", ["", "http://server:5000"])
def test_the_tracking_uri_of_the_environment_is_the_default(value):
    code = "from nas.sync import make_parser; print(make_parser().parse_args([]).tracking_uri)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"MLFLOW_TRACKING_URI": value, "PYTHONPATH": str(Path(hints.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert out.strip() == (value or hints.MLFLOW_DEFAULT)


def test_what_follows_depends_on_the_images():
    args = parsed(retrain_command("synthetic", {"best": True, "runs_dir": ODD}))
    assert (args.best, args.runs_dir, args.epochs) == (True, ODD, hints.BUILT_IN_EPOCHS)
    assert parsed(retrain_command("data/widerface", {"top": 2})).epochs is None
    for data, inputs in (
        ("synthetic", "synthetic"),
        ("data/widerface", "PHOTOS"),
        (None, "PHOTOS"),
    ):
        args = parsed(detect_command(data, {"model": ODD}))
        assert (args.inputs, args.model, args.visualize) == ([Path(inputs)], ODD, True)


def test_the_pages_of_every_store_are_advised():
    assert ui_command(hints.DEFAULT_TRACKING_URI) == "python -m nas.ui"
    assert parsed(ui_command(STORE)).tracking_uri == STORE
    assert ui_command("none") is None


@pytest.mark.slow
def test_a_hint_works_when_pasted(tmp_path):
    """A search in a folder with a space and a quote; then its hint to retrain, for one epoch."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    root = Path(hints.__file__).parents[1]
    search = [sys.executable, "-m", "nas.search", "--space", "quick", "--trials", "1"]
    search += ["--data", "synthetic", "--tracking-uri", "sqlite:///my db.sqlite"]
    search += ["--runs-dir", "my runs", "--device", "cpu"]
    environment = {"PYTHONPATH": str(root), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    environment |= {"HOME": str(tmp_path)}
    done = subprocess.run(
        search, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    retrain = hints_in(done.stdout)[0]
    again = subprocess.run(
        ["sh", "-c", retrain + " --epochs 1 --size 64 --fraction 0.1"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert (folder / "my runs" / "quick-001" / "best" / "weights.pt").exists()
    assert not (folder / "mlflow.db").exists() and not (folder / "runs").exists()
    (evaluate,) = hints_in(again.stdout)
    assert parsed(evaluate).tracking_uri == "sqlite:///my db.sqlite"
