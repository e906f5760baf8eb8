"""nas.entry, run as a user does: what is packed, what --check finds, and what is refused."""

import errno
import functools
import json
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import helpers
import pytest
import torch
from released_files import foreign_state, write_foreign

from detector.config.presets import load_design
from detector.data.types import WIDER
from detector.network.model import build_detector
from nas import entry, evaluate
from nas.models import entry_files
from nas.models.model_folder import write_config
from nas.retraining.candidate import choose_candidate, full_recipe
from nas.retraining.options import RetrainOptions
from nas.terminal import cli

DATA_RULE = "no data other than the given subset of WIDER FACE"


@pytest.fixture(autouse=True)
def one_timed_pass(monkeypatch):
    """Latency is measured once instead of 30 times."""
    from detector.inference import latency

    monkeypatch.setattr(latency, "latencies", functools.partial(latency.latencies, repeats=1))


@pytest.fixture
def called(tiny_study, capsys):
    """Function: command, flags → (exit code, stdout, stderr) in the tiny study's folder."""

    def call(command, *flags) -> tuple[int, str, str]:
        shared = ["--runs-dir", tiny_study.folder.parent, "--tracking-uri", "none"]
        argv = [str(word) for word in (*shared, *flags)]
        code = cli.main(command.make_parser(), command.run, argv)
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def best(tiny_study, untrained_model):
    """Folder of a model as if retrained on 20 images of WIDER FACE; its weights are random."""
    design = tiny_study.records[1].detector
    origin = helpers.metrics(design).origin
    data = replace(origin.data, path="data/widerface", holdout=0.3)
    origin = replace(origin, data=data, data_name=WIDER, with_holdout=True)
    return untrained_model(tiny_study.folder / "best", design, origin=origin)


@pytest.fixture
def packed(called, best):
    """The folder of an entry of that model, whose rules all hold."""
    code, _, err = called(entry, "--data", "synthetic")
    assert (code, err) == (0, "")
    return best.with_name("entry")


def sums_hold(folder: Path) -> bool:
    """By the real sha256sum."""
    process = subprocess.run(
        ["sha256sum", "--quiet", "-c", entry_files.SUMS], cwd=folder, capture_output=True
    )
    return process.returncode == 0


def test_an_entry_has_all_files_and_their_hashes(called, best, tiny_study, tmp_path):
    code, out, err = called(entry, "--data", "synthetic", "--zip", "--json", tmp_path / "e.json")
    assert (code, err) == (0, "")
    folder = tiny_study.folder / "entry"
    assert f"packed   {folder}: " in out and "4 of 4 rules hold" in out
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("README.md", "SHA256SUMS", "config.yaml", "evaluation.json"),
        *("network.json", "predictions", "search_space.yaml", "thop.txt", "training.json"),
        "weights.pt",
    }
    assert sums_hold(folder) and not list(folder.parent.glob(".*entry*"))
    assert (folder / "weights.pt").read_bytes() == (best / "weights.pt").read_bytes()
    output = json.loads((tmp_path / "e.json").read_text())
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert output["files"] == len(files) == 10 + 7
    assert output["bytes"] == sum(path.stat().st_size for path in files)
    with zipfile.ZipFile(output["zip"]) as archive:
        assert archive.testzip() is None
        inside = {name: archive.read(name) for name in archive.namelist()}
    assert inside == {f"entry/{path.relative_to(folder)}": path.read_bytes() for path in files}

    # What is packed scores as the source does, and its prediction files as well.
    result = json.loads((folder / "evaluation.json").read_text())
    assert result == output["evaluation"] and result["checkpoint"] == str(folder / "weights.pt")
    flags = ("--data", "synthetic", "--output", tmp_path / "predictions")
    called(evaluate, *flags, "--json", tmp_path / "source.json")
    source = json.loads((tmp_path / "source.json").read_text())
    same = ("ap", "params", "macs", "score", "rules", "evaluation", "images", "ground_truth")
    assert [result[key] for key in same] == [source[key] for key in same]
    texts = {p: (folder / p).read_text() for p in entry_files.files_of(folder) if p[-4:] == ".txt"}
    del texts["thop.txt"]
    assert len(texts) == 8 and sum(text.count("\n") for text in texts.values()) > 100
    assert all((tmp_path / path).read_text() == text for path, text in texts.items())
    flags = ("--predictions", folder / "predictions", "--data", "synthetic", "--listed-only")
    called(evaluate, *flags, "--json", tmp_path / "files.json")
    assert json.loads((tmp_path / "files.json").read_text())["ap"] == result["ap"]
    # nas.evaluate keeps nothing in an entry.
    assert called(evaluate, "--checkpoint", folder / "weights.pt", "--data", "synthetic")[0] == 0
    assert sums_hold(folder) and {path.name for path in folder.iterdir()} == names


@pytest.mark.slow
def test_an_onnx_graph_is_packed_if_asked_for(called, best, tmp_path):
    assert called(entry, "--data", "synthetic", "--onnx")[0] == 0
    folder = best.with_name("entry")
    assert sums_hold(folder) and "| `model.onnx` |" in (folder / "README.md").read_text()
    flags = ("--model", folder / "model.onnx", "--data", "synthetic")
    assert called(evaluate, *flags, "--json", tmp_path / "g.json")[0] == 0
    ap = json.loads((tmp_path / "g.json").read_text())["ap"]
    packed_ap = json.loads((folder / "evaluation.json").read_text())["ap"]
    assert ap == pytest.approx(packed_ap, abs=1e-3)


def test_the_report_says_what_it_is_and_how_to_make_it_again(packed, tiny_study):
    text = (packed / "README.md").read_text()
    result = json.loads((packed / "evaluation.json").read_text())
    assert text.startswith("# Entry: trial 1 of study tiny\n") and f"`{result['describe']}`" in text
    assert f"| **score** | **{result['score']:.4f}** |" in text
    for rule in result["rules"]:
        assert f"| {rule['rule']} | yes | {rule['evidence']} |" in text
    assert f"{tiny_study.folder}/entry/search_space.yaml" in text and "--study tiny" in text
    assert "its images: 2 completed, 1 infeasible; 2 epochs trained" in text
    line = next(line for line in text.splitlines() if line.startswith("python -m nas.retrain"))
    assert line == (
        f"python -m nas.retrain --preset {packed}/config.yaml --data data/widerface "
        "--holdout 0.3 --with-holdout --seed 0"
    )
    # That command trains the design of the entry with its recipe.
    options = RetrainOptions(preset=str(packed / "config.yaml"), data="data/widerface")
    candidate = choose_candidate(options)
    design, recipe = load_design(packed / "config.yaml")
    trained = full_recipe(candidate, options)
    assert candidate.config == design == tiny_study.records[1].detector
    assert replace(trained, evaluation=recipe.evaluation) == recipe


def test_thop_is_quoted_with_what_it_has_no_rule_for(packed, tiny_study):
    cost = tiny_study.records[1].cost
    text = (packed / "thop.txt").read_text()
    assert f"\n>>> macs, params\n({cost.macs:.1f}, {cost.params:.1f})\n" in text
    assert "[INFO] Register count_convNd() for" in text and "thop.clever_format" in text
    assert text.endswith(f"{cost.macs:,} MACs and {cost.params:,} parameters, the same.\n")


def test_an_entry_that_is_as_packed_passes(called, packed, tmp_path):
    code, out, err = called(entry, "--check", packed, "--json", tmp_path / "c.json")
    assert (code, err) == (0, "") and "DIFFERS" not in out
    assert "8 files score exactly as recorded: easy 0" in out
    assert json.loads((tmp_path / "c.json").read_text()) == {
        "entry": str(packed),
        "differences": [],
    }


def one_prediction_file(folder: Path) -> Path:
    return min((folder / "predictions").glob("*/*.txt"))


def perfect_boxes(folder: Path) -> None:
    """Replace a prediction file by the faces themselves."""
    from detector.config.recipe import DataChoice
    from detector.data.open import open_data

    file = one_prediction_file(folder)
    key = f"{file.parent.name}/{file.stem}"
    labels = open_data(DataChoice(path="synthetic")).val.labels
    (boxes,) = (one.boxes for one in labels if one.name.rpartition(".")[0] == key)
    rows = [f"{x1} {y1} {x2 - x1} {y2 - y1} 1.0" for x1, y1, x2, y2 in boxes.round().tolist()]
    file.write_text("\n".join([file.stem, str(len(rows)), *rows]) + "\n")


def edit_result(folder: Path, **changes) -> None:
    path = folder / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = [
    (lambda f: helpers.flip_weight(f / "weights.pt"), False, "weights.pt: its SHA-256 is another"),
    (
        lambda f: helpers.flip_weight(f / "weights.pt"),
        True,
        "weights.pt: not a readable checkpoint",
    ),
    (perfect_boxes, False, ".txt: its SHA-256 is another one"),
    (perfect_boxes, True, "of the prediction files is"),
    (lambda f: one_prediction_file(f).unlink(), False, ".txt: is missing"),
    (lambda f: one_prediction_file(f).unlink(), True, "1 of 8 val images have no prediction file"),
    (lambda f: one_prediction_file(f).write_text("x"), True, "line 1 must be the image's name"),
    (lambda f: (f / "thop.txt").unlink(), False, "thop.txt: is missing"),
    (lambda f: (f / "notes.txt").write_text("x"), False, "notes.txt: is not listed in SHA256SUMS"),
    (lambda f: edit_result(f, score=3.0), True, "evaluation.json has 3.0"),
    (lambda f: edit_result(f, macs=1), True, " and 1"),
    (lambda f: edit_result(f, rules=[]), True, "at most 45 M parameters: is True by the weights"),
    (lambda f: (f / "evaluation.json").unlink(), False, "evaluation.json: is missing"),
    (lambda f: (f / "evaluation.json").write_text("[]"), True, "evaluation.json: cannot be read"),
    (lambda f: edit_result(f, ap=3), True, "evaluation.json.ap: 3 must be a mapping"),
    (lambda f: edit_result(f, entry={"format": 2}), True, "written by a newer version"),
    (lambda f: (f / "weights.pt").unlink(), True, "has 0 files weights.*"),
    (lambda f: write_config(f, "", helpers.TINY_DETECTOR, {}), True, "not that of the weights"),
    (lambda f: (f / "config.yaml").write_text("detector: 1"), True, "must be a mapping with keys"),
]


def test_check_finds_what_differs(called, packed, tmp_path):
    for number, (damage, with_new_hashes, message) in enumerate(DAMAGES):
        folder = tmp_path / f"entry-{number}"
        shutil.copytree(packed, folder)
        damage(folder)
        if with_new_hashes:
            entry_files.write_sums(folder)
        code, out, err = called(entry, "--check", folder, "--json", tmp_path / "c.json")
        assert code == 1 and err.count("\n") == 1 and str(folder) in err, (number, err)
        assert any(message in line for line in out.splitlines() if "DIFFERS" in line), (number, out)
        differences = json.loads((tmp_path / "c.json").read_text())["differences"]
        assert differences and any(message in line for line in differences)
        assert with_new_hashes or not sums_hold(folder) or "not listed" in message


def test_check_detects_again_with_the_packed_weights(called, packed, tiny_study):
    """Weights of the same design, with hashes of their own."""
    from detector.weights import checkpoint

    saved = checkpoint.load(packed / "weights.pt")
    other = build_detector(saved.config, seed=1)
    checkpoint.save(packed / "weights.pt", other, saved.config, saved.recipe, saved.state)
    (packed / "weights.json").unlink()
    entry_files.write_sums(packed)
    code, out, _ = called(entry, "--check", packed)
    assert code == 1 and "detections  DIFFERS: detecting again in 8 images gives" in out
    assert out.count("DIFFERS") == 1


def test_a_broken_rule_is_said_plainly(called, tiny_study, untrained_model):
    """A model that was trained on drawn scenes."""
    untrained_model(tiny_study.folder / "best", tiny_study.records[1].detector)
    code, out, err = called(entry)
    folder = tiny_study.folder / "entry"
    assert code == 1 and "3 of 4 rules hold" in out and sums_hold(folder)
    assert err == f"error: {folder}: packed, but: {DATA_RULE} does not hold\n"
    assert f"| {DATA_RULE} | **NO** | trained on 20 built-in" in (folder / "README.md").read_text()
    code, out, err = called(entry, "--check", folder)
    assert code == 1 and "DIFFERS" not in out
    assert f"as it was packed, but not all rules hold: {DATA_RULE} does not hold" in err


def test_weights_of_another_program_are_packed_with_their_design(called, tmp_path):
    preset = tmp_path / "own.yaml"
    preset.write_text(
        "detector:\n  backbone: {kind: mobilenet_v1, stem: 4, widths: [4, 8, 8, 8, 8], "
        "depths: [1, 1, 1, 1, 1]}\n  neck: {levels: [4, 5], width: 8}\n"
        "recipe: {evaluation: {nms_iou: 0.3, keep: 9}}\n"
    )
    weights = tmp_path / "released.pth"
    torch.save(build_detector(load_design(preset)[0]).state_dict(), weights)
    flags = ("--checkpoint", weights, "--preset", preset, "--data", "synthetic")
    code, out, err = called(entry, *flags)
    folder = tmp_path / "released-entry"
    assert code == 1 and "pretrained on ImageNet-1k only is unknown" in err
    assert "evaluation settings of own: original image size" in out and sums_hold(folder)
    assert (folder / "weights.pth").read_bytes() == weights.read_bytes()
    weights.unlink()
    preset.unlink()
    assert "differences" not in called(entry, "--check", folder)[2]
    code, out, _ = called(
        evaluate,
        *("--checkpoint", folder / "weights.pth", "--preset", folder / "config.yaml"),
        *("--data", "synthetic", "--json", tmp_path / "e.json"),
    )
    result = json.loads((folder / "evaluation.json").read_text())
    again = json.loads((tmp_path / "e.json").read_text())
    assert code == 0 and again["evaluation"]["keep"] == 9
    assert [again[key] for key in ("ap", "evaluation", "score")] == [
        result[key] for key in ("ap", "evaluation", "score")
    ]


def test_an_archive_is_checked_like_its_folder(called, packed, tmp_path):
    archive = tmp_path / "entry.zip"
    entry_files.write_zip(packed, archive, "entry")
    code, out, err = called(entry, "--check", archive)
    assert (code, err) == called(entry, "--check", packed)[::2] or str(archive) in err
    assert f"entry: {archive}" in out and "DIFFERS" not in out
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("entry/more.txt", "unlisted")
    code, _, err = called(entry, "--check", archive)
    assert code == 1 and f"{archive}: differs from what was packed: more.txt: is not listed" in err


def test_weights_in_several_files_are_packed_together(called, tmp_path):
    base = write_foreign(foreign_state("eresfd"), tmp_path)
    called(entry, "--checkpoint", base, "--preset", "eresfd", "--data", "synthetic")
    folder = tmp_path / "w.pth.base-entry"
    assert sorted(path.name for path in folder.glob("weights.*")) == [
        "weights.base.pth",
        "weights.conf.pth",
        "weights.loc.pth",
    ]
    assert "differences" not in called(entry, "--check", folder)[2]
    (folder / "weights.loc.pth").unlink()
    assert "weights.loc.pth: is missing" in called(entry, "--check", folder)[2]


def test_another_count_of_thop_is_an_error(called, best, monkeypatch):
    from detector.network import counters

    count = counters.thop_profile
    monkeypatch.setattr(
        counters, "thop_profile", lambda net: replace(count(net), macs=count(net).macs + 1)
    )
    code, _, err = called(entry, "--data", "synthetic")
    assert code == 2 and err.count("\n") == 1 and "thop counts" in err
    assert sorted(path.name for path in best.parent.iterdir() if "entry" in path.name) == []


def test_a_full_disk_leaves_what_was_there(called, packed, monkeypatch):
    before = {path: path.read_bytes() for path in packed.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("detector.metrics.wider_files.write_predictions", full)
    code, _, err = called(entry, "--data", "synthetic", "--overwrite")
    assert code == 2 and err.count("\n") == 1
    assert f"--output {packed}: cannot be written (No space left on device)" in err
    assert {path: path.read_bytes() for path in packed.rglob("*") if path.is_file()} == before
    assert not list(packed.parent.glob(".*entry*"))


def test_an_older_entry_is_replaced_only_if_asked_for(called, packed):
    sums = (packed / "SHA256SUMS").read_text()
    code, _, err = called(entry, "--data", "synthetic")
    assert code == 2 and "has an entry already; give --overwrite" in err
    assert (packed / "SHA256SUMS").read_text() == sums
    (packed / "model.onnx").write_text("of the older one")
    assert called(entry, "--data", "synthetic", "--overwrite", "--flip")[0] == 0
    assert not (packed / "model.onnx").exists() and sums_hold(packed)
    assert not list(packed.parent.glob(".*entry*"))
    assert json.loads((packed / "evaluation.json").read_text())["flip"] is True
    text = (packed / "README.md").read_text()
    assert "2 forward passes per image, while MACs" in text and "--data synthetic --flip" in text
    assert called(entry, "--check", packed)[0] == 0


@pytest.mark.slow
def test_mlflow_has_it_with_the_evaluation_of_the_same_weights(called, best, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for command in (evaluate, entry):
        assert called(command, "--data", "synthetic", "--tracking-uri", uri)[0] == 0
    store = MlflowClient(uri)
    experiments = [one.experiment_id for one in store.search_experiments()]
    runs = store.search_runs(experiments, "tags.role = 'evaluate'")
    assert [run.data.params["checkpoint"] for run in runs] == [str(best / "weights.pt")]
    files = {file.path for file in store.list_artifacts(runs[0].info.run_id)}
    assert files == {"README.md", "SHA256SUMS", "evaluation.json", "thop.txt"}


def test_bad_input_is_one_line_and_writes_nothing(called, best, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "photo.jpg").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    for flags, message in (
        (["--study", "other"], "study other is not in"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt: no such checkpoint"),
        (["--preset", "yunet_n"], "--preset: needs --checkpoint"),
        (["--output", tmp_path / "no" / "entry"], "does not exist; create it first"),
        (["--output", tmp_path / "file"], "is not a folder; choose a new one"),
        (["--output", tmp_path / "filled", "--overwrite"], "is not empty, and no entry"),
        (["--data", tmp_path / "nowhere"], "nowhere"),
        (["--data", tmp_path / "filled"], "filled"),
        (["--check", tmp_path / "filled"], "is not an entry, it has no SHA256SUMS"),
        (["--check", tmp_path / "no"], "is not an entry"),
        (["--check", best, "--zip", "--onnx"], "--zip, --onnx: only for packing"),
    ):
        code, _, err = called(entry, *flags)
        assert code == 2 and message in err and err.count("\n") == 1, (flags, err)
        assert sorted(tmp_path.rglob("*")) == before
