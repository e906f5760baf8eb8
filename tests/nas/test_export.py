"""nas.export, run as a user does, and the exported model scored by nas.evaluate."""

import contextlib
import json
import shlex
from itertools import pairwise

import pytest

from detector.base.errors import UserError
from detector.data.synthetic.scenes import SyntheticImages
from detector.data.types import UnreadableImage
from nas import detect, evaluate, export
from nas.models import quantization
from nas.models.model_folder import load_model
from nas.terminal import cli


@pytest.fixture
def best(tiny_study, untrained_model, traced_once):
    """Folder of a model as if retrained; its weights are random."""
    config = tiny_study.records[1].detector
    return untrained_model(tiny_study.folder / "best", config)


@pytest.fixture
def called(tiny_study, capsys):
    def call(command, *flags) -> tuple[int, str, str]:
        code = cli.main(
            command.make_parser(),
            command.run,
            [
                "--runs-dir",
                str(tiny_study.folder.parent),
                "--tracking-uri",
                "none",
                *map(str, flags),
            ],
        )
        return (code, *capsys.readouterr())

    return call


def test_an_exported_model_scores_like_the_torch_model(called, best, tmp_path):
    code, out, err = called(
        export, "--format", "onnx", "--study", "tiny", "--json", tmp_path / "x.json"
    )
    assert (code, err) == (0, "") and "largest difference from torch  class_logits" in out
    words = shlex.split(out.splitlines()[-1])  # the next command, for these images
    assert words[:4] == ["python", "-m", "nas.detect", "synthetic"]
    detection = detect.make_parser().parse_args(words[3:])
    assert detection.model == best / "model.onnx" and detection.visualize
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["file"] == str(best / "model.onnx") and result["passed"]
    assert set(result["differences"]) == {"class_logits", "box_deltas"}
    assert sorted(p.name for p in best.iterdir() if "unchecked" in p.name) == []
    scores = []
    for number, flags in enumerate((("--model", best / "model.onnx"), ("--study", "tiny"))):
        path = tmp_path / f"{number}.json"
        code, out, _ = called(evaluate, *flags, "--data", "synthetic", "--flip", "--json", path)
        assert code == 0
        assert ("python -m nas.export --format onnx" in out) == ("--study" in flags)
        scores.append(json.loads(path.read_text()))
    assert scores[0]["ap"] == pytest.approx(scores[1]["ap"], abs=1e-3)
    assert scores[0]["macs"] == scores[1]["macs"] and "ONNX Runtime" in scores[0]["machine"]


def test_the_result_of_a_graph_is_not_that_of_the_weights_beside_it(called, best, tmp_path):
    assert called(export, "--format", "onnx", "--study", "tiny")[0] == 0
    code, out, _ = called(evaluate, "--model", best / "model.onnx")
    assert code == 0 and "data: synthetic (what the model was trained on)" in out
    assert not (best / "evaluation.json").exists()
    (tmp_path / "model.onnx").write_bytes((best / "model.onnx").read_bytes())
    (tmp_path / "metrics.json").write_text('{"accuracy": 0.9}')  # of another program
    code, out, _ = called(evaluate, "--model", tmp_path / "model.onnx")
    assert code == 0 and "what the model was trained on" not in out


def test_a_failed_check_deletes_nothing(called, best, monkeypatch, tmp_path):
    from detector.export.exporter import Check

    target = best / "model.xml"
    target.write_text("older")
    monkeypatch.setattr(
        "detector.export.exporter.export",
        lambda model, config, path, *_: [
            path.write_text("new"),
            path.with_suffix(".bin").write_text("new"),
        ],
    )
    monkeypatch.setattr(
        "detector.export.exporter.check",
        lambda *_: Check(differences={"class_logits": 3.5}, compared=9, passed=False),
    )
    code, out, err = called(export, "--format", "openvino", "--json", tmp_path / "x.json")
    assert code == 1 and "3.5" in out and err.count("\n") == 1
    assert "model.unchecked.xml: differs from torch" in err
    assert target.read_text() == "older"
    assert (best / "model.unchecked.xml").read_text() == "new"
    assert json.loads((tmp_path / "x.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--format", "onnx", "--output", "model.xml"), "must end in .onnx"),
        (("--format", "onnx", "--output", "nowhere/model.onnx"), "does not exist"),
        (("--format", "onnx", "--post", "nms", "--confidence", "2"), "between 0 and 1"),
        (("--format", "onnx", "--checkpoint", "no.pt"), "no such checkpoint"),
        (("--format", "onnx", "--checkpoint", "no.pt", "--study", "tiny"), "give only one of them"),
        (("--format", "tflite"), "invalid choice"),
        ((), "--format"),
    ],
)
def test_an_error_is_one_line(called, best, flags, message):
    code, _, err = called(export, *flags)
    assert code == 2 and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--model", "no.onnx"), "no such file"),
        (("--model", "weights.pt"), "must be an .onnx"),
        (("--model", "a.onnx", "--checkpoint", "b.pt"), "--checkpoint and --model: give only one"),
        (("--model", "a.onnx", "--predictions", "b"), "--model and --predictions: give only one"),
    ],
)
def test_evaluate_reports_what_is_wrong_with_a_model(called, flags, message):
    code, _, err = called(evaluate, *flags)
    assert code == 2 and message in err and err.count("\n") == 1


def test_int8_is_checked_on_the_hold_out_and_written_beside_the_float_graph(
    called, best, tmp_path, monkeypatch
):
    monkeypatch.setattr("nas.models.quantization.SIZE", 96)
    flags = ("--format", "onnx", "--study", "tiny", "--int8", "--max-loss", "1")
    code, out, err = called(export, *flags, "--json", tmp_path / "x.json")
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["file"] == str(best / "model-int8.onnx")
    found = result["int8"]
    assert set(found["ap_before"]) == set(found["ap_after"]) == {"easy", "medium", "hard"}
    assert found["float_parts"] == [] and found["images"] > 0
    assert found["bytes_after"] == (best / "model-int8.onnx").stat().st_size
    assert "latency " in out and "size " in out
    assert not [p.name for p in best.iterdir() if "unchecked" in p.name or p.name[0] == "."]
    code, out, _ = called(evaluate, "--model", best / "model-int8.onnx", "--data", "synthetic")
    assert code == 0


def test_int8_of_openvino_is_two_files_with_parts_that_may_stay_in_float(
    called, best, tmp_path, monkeypatch
):
    monkeypatch.setattr("nas.models.quantization.SIZE", 96)
    monkeypatch.setattr("nas.models.quantization.CALIBRATION_IMAGES", 3)
    flags = ("--format", "openvino", "--study", "tiny", "--int8", "--max-loss", "1")
    code, out, err = called(export, *flags, "--json", tmp_path / "x.json")
    assert (code, err) == (0, "")
    assert "━" not in out  # NNCF's progress bars
    found = json.loads((tmp_path / "x.json").read_text())["int8"]
    written = [best / "model-int8.bin", best / "model-int8.xml"]
    assert found["bytes_after"] == sum(path.stat().st_size for path in written)
    assert not [p.name for p in best.iterdir() if "unchecked" in p.name or p.name[0] == "."]
    code, out, _ = called(evaluate, "--model", best / "model-int8.xml", "--data", "synthetic")
    assert code == 0


@pytest.mark.parametrize("file_format", ["onnx", "openvino"])
def test_int8_that_loses_too_much_writes_nothing(called, best, monkeypatch, file_format):
    from detector.base.errors import UserError

    def refuse(*args):
        raise UserError("loses too much")

    monkeypatch.setattr("detector.export.int8.quantize_within", refuse)
    before = sorted(best.iterdir())
    code, _, err = called(export, "--format", file_format, "--study", "tiny", "--int8")
    assert (code, err) == (2, "error: loses too much\n")
    assert sorted(best.iterdir()) == before


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError("of a library")])
def test_whatever_ends_int8_leaves_nothing(called, best, monkeypatch, fault):
    def fail(*args):
        raise fault

    monkeypatch.setattr("detector.export.int8.quantize_within", fail)
    before = sorted(best.iterdir())
    with contextlib.suppress(ValueError):
        called(export, "--format", "openvino", "--study", "tiny", "--int8")
    assert sorted(best.iterdir()) == before


def test_a_missing_package_is_said_before_anything_is_exported(called, best, monkeypatch):
    monkeypatch.setattr("detector.export.int8.find_spec", lambda name: None)
    code, out, err = called(export, "--format", "openvino", "--study", "tiny", "--int8")
    assert code == 2 and "openvino is not installed; pip install openvino" in err
    assert "exporting" not in out


def test_images_that_cannot_be_read_are_left_out_of_the_calibration(best, capsys):
    model = load_model(best / "weights.pt")
    images = SyntheticImages("train", 40)
    whole, broken = images.image, {0, 5}

    def image(index):
        if index in broken:
            raise UnreadableImage(f"{index}.jpg: cut off")
        return whole(index)

    images.image = image
    assert len(list(quantization._calibration(images, model))) == 30
    assert "note: 2 of 32 calibration images cannot be read; the first is 0.jpg" in (
        capsys.readouterr().out
    )
    broken.update(range(40))
    with pytest.raises(UserError, match="32 of 32 calibration images cannot be read"):
        list(quantization._calibration(images, model))


def test_images_of_all_events_are_checked():
    """They are sorted by event."""
    assert quantization._spread(5, 200) == [0, 1, 2, 3, 4]
    spread = quantization._spread(2574, 200)
    assert (len(set(spread)), spread[0]) == (200, 0)
    assert spread[-1] == 2561 and {b - a for a, b in pairwise(spread)} == {12, 13}


def test_a_graph_that_ends_with_nms_is_checked_at_its_own_settings(called, best, monkeypatch):
    monkeypatch.setattr("nas.models.quantization.SIZE", 96)
    flags = ("--study", "tiny", "--int8", "--max-loss", "1", "--post", "nms", "--confidence", "0.5")
    code, _, err = called(export, "--format", "onnx", *flags)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--format", "onnx", "--data", "synthetic"), "--data: needs --int8"),
        (("--format", "onnx", "--max-loss", "0.5"), "--max-loss: needs --int8"),
        (("--format", "onnx", "--nms", "0.1"), "--nms: needs --post nms"),
        (("--format", "onnx", "--int8", "--max-loss", "2"), "--max-loss 2: must be between"),
        (("--format", "onnx", "--int8", "--data", "gone"), "gone"),
    ],
)
def test_flags_of_int8_that_do_not_fit_are_refused(called, best, flags, message):
    code, _, err = called(export, "--study", "tiny", *flags)
    assert code == 2 and message in err
    assert not [p.name for p in best.iterdir() if p.suffix == ".onnx"]
