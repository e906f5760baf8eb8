"""nas.evaluate, run as a user does."""

import json

import cv2
import numpy as np
import pytest

from detector.config.recipe import DataChoice, Evaluation
from nas import evaluate
from nas.models.model_folder import last_retrained
from nas.terminal import cli, tta_flags


@pytest.fixture
def evaluated(tiny_study, capsys):
    """Function: flags → (exit code, stdout, stderr) of nas.evaluate in the tiny study's folder."""

    def call(*flags: str) -> tuple[int, str, str]:
        code = cli.main(
            evaluate.make_parser(),
            evaluate.run,
            ["--runs-dir", str(tiny_study.folder.parent), "--tracking-uri", "none", *flags],
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def save_trial_model(untrained_model):
    """Function: study, trial, folder, time → the folder, with a model of that trial."""

    def save(study, number: int, folder, finished: float):
        title = f"trial {number} of study tiny"
        return untrained_model(
            folder, study.records[number].detector, title=title, finished=finished
        )

    return save


def test_the_most_recently_retrained_model_is_scored(
    evaluated, tiny_study, tmp_path, save_trial_model
):
    save_trial_model(tiny_study, 0, tiny_study.folder / "retrained" / "r000", finished=5.0)
    best = save_trial_model(tiny_study, 1, tiny_study.folder / "best", finished=9.0)
    code, out, err = evaluated(
        "--json", str(tmp_path / "e.json"), "--output", str(tmp_path / "out")
    )
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "e.json").read_text())
    record = tiny_study.records[1]
    assert (result["params"], result["macs"]) == (record.cost.params, record.cost.macs)
    assert result["latency_p10_ms"] <= result["latency_ms"] <= result["latency_p90_ms"]
    assert result["score"] == pytest.approx(
        record.speed_score + 2 * np.mean(list(result["ap"].values()))
    )
    assert [rule["holds"] for rule in result["rules"]] == [True, True, False, True]
    assert "8 val images, original image size; faces by their height" in out
    assert "trial 1 of study tiny" in out and "1 thread" in out
    assert json.loads((best / "evaluation.json").read_text()) == result
    assert cv2.imread(str(best / "examples.png")).shape == (640, 960, 3)
    network = json.loads((best / "network.json").read_text())
    assert sum(params for _, params, _ in network["layers"]) == record.cost.params

    # Scoring the prediction files that it wrote gives the same AP.
    code, out, _ = evaluated(
        "--predictions",
        str(tmp_path / "out"),
        "--data",
        "synthetic",
        "--json",
        str(tmp_path / "p.json"),
    )
    assert code == 0
    assert json.loads((tmp_path / "p.json").read_text())["ap"] == pytest.approx(result["ap"])

    # Another test size and test-time augmentation: reported, but not saved for reports.
    code, out, _ = evaluated(
        "--test-size",
        "vga",
        "--flip",
        "--scales",
        "0.5,1",
        "--metric",
        "coco",
        "--json",
        str(tmp_path / "v.json"),
    )
    other = json.loads((tmp_path / "v.json").read_text())
    assert code == 0 and "8 val images, long side at most 640 px, at × 0.5, 1, mirrored too" in out
    assert "uses 4 forward passes per image" in out and "COCO     AP 0" in out and "AR100" in out
    assert [other[k] for k in ("metric", "test_size", "flip", "scales")] == [
        "coco",
        "640",
        True,
        [0.5, 1.0],
    ]
    assert other["coco"]["AP"] <= other["coco"]["AP50"]
    assert (other["score"] - other["speed_score"]) / 2 == pytest.approx(other["accuracy_score"])
    assert [rule["holds"] for rule in other["rules"]] == [True, True, False, True]
    assert [result[k] for k in ("metric", "test_size", "flip", "scales")] == [
        "wider",
        "original",
        False,
        [1.0],
    ] and "coco" not in result
    assert json.loads((best / "evaluation.json").read_text()) == result

    assert evaluated("--study", "tiny")[0] == 0
    assert "not empty" in evaluated("--output", str(tmp_path / "out"))[2]


def test_the_newest_retrain_is_chosen(tiny_study, save_trial_model):
    runs = tiny_study.folder.parent
    save_trial_model(tiny_study, 1, tiny_study.folder / "best", finished=1.0)
    newer = save_trial_model(tiny_study, 0, runs / "retinaface_mobile025" / "best", finished=2.0)
    assert last_retrained(runs) == newer
    save_trial_model(
        tiny_study, 1, tiny_study.folder / "best", finished=3.0
    )  # replaces the older model
    assert last_retrained(runs) == tiny_study.folder / "best"
    assert not list(tiny_study.folder.glob(".best*"))


BAD_INPUT = [
    ([], "contains no retrained model yet"),
    (["--study", "other"], "study other is not in"),
    (["--study", "tiny"], "python -m nas.retrain --best --study tiny"),
    (["--checkpoint", "nowhere.pt"], "nowhere.pt: no such checkpoint"),
    (["--preset", "retinaface_mobile025"], "--preset: needs --checkpoint"),
    (["--listed-only"], "--listed-only: needs --predictions"),
    (["--study", "tiny", "--predictions", "x"], "--study and --predictions: give only one of them"),
    (["--predictions", "nowhere", "--data", "synthetic"], "nowhere: no such folder"),
    (["--predictions", "x", "--flip"], "need a model"),
    (["--test-size", "1600x"], "'1600x' must be original, vga, the long side"),
    (["--test-size", "0"], "'0' must be"),
    (["--test-size", "x640"], "'x640' must be"),
    (["--test-size", "2150x1600"], "'2150x1600' must be"),
    (["--scales", "1,0"], "'1,0' must be numbers above 0"),
    (["--scales", "nan"], "'nan' must be"),
]


def test_bad_input_is_one_line(evaluated):
    for flags, message in BAD_INPUT:
        code, _, err = evaluated(*flags)
        assert code == 2 and message in err and err.count("\n") == 1


def test_checkpoint_of_another_design(evaluated, tiny_study, save_trial_model):
    folder = save_trial_model(tiny_study, 1, tiny_study.folder / "best", finished=1.0)
    code, _, err = evaluated(
        "--checkpoint",
        str(folder / "weights.pt"),
        "--preset",
        "retinaface_mobile025",
        "--data",
        "synthetic",
    )
    assert code == 2 and "weights of another design: backbone.stem is 4 there, 8 here" in err


def test_weights_of_other_programs_need_a_preset(evaluated, tmp_path):
    import torch

    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "foreign.pth")
    code, _, err = evaluated("--checkpoint", str(tmp_path / "foreign.pth"))
    assert code == 2 and "--preset" in err and err.count("\n") == 1


def test_missing_prediction_files_and_a_bad_line(evaluated, tmp_path):
    import detector.data.open

    val = detector.data.open.open_data(DataChoice()).val
    names = [label.name.removesuffix(".jpg") for label in val.labels]
    for name in names[1:]:
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n1\n10 10 20 20 0.9\n")
    code, out, err = evaluated(
        "--predictions", str(tmp_path), "--data", "synthetic", "--metric", "coco"
    )
    assert "COCO     AP 0" in out
    assert code == 1 and f"1 of 8 images have no prediction file, the first is {names[0]}" in err
    path.write_text(f"{name}\n2\n10 10 20 20 0.9\n10 10 oops\n")
    code, _, err = evaluated("--predictions", str(tmp_path), "--data", "synthetic")
    assert code == 2 and f"{path}:4: '10 10 oops'" in err


def test_published_predictions_agree_in_every_digit(wider_root, capsys, tmp_path):
    import tarfile

    with tarfile.open(wider_root.parent / "predictions" / "retinaface_mobile025.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    code = cli.main(
        evaluate.make_parser(),
        evaluate.run,
        ["--predictions", str(tmp_path), "--data", str(wider_root), "--listed-only"],
    )
    out = capsys.readouterr().out
    assert code == 0 and "488 images" in out
    assert "easy 0.9271978013894713  medium 0.8987260677236961  hard 0.734930773171812" in out


def test_sizes_and_factors_are_parsed():
    sizes = {
        "original": (None, None),
        "vga": (None, 640),
        "640": (None, 640),
        "1600x2150": (1600, 2150),
    }
    assert {text: tta_flags.test_size(text) for text in sizes} == sizes
    assert tta_flags.factors("0.5,1,1.50,1") == (0.5, 1.0, 1.5)
    for text in ("original", "640", "1600x2150"):
        short, long = tta_flags.test_size(text)
        assert tta_flags.format_test_size(Evaluation(short=short, size=long)) == text
