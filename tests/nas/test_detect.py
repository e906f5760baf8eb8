"""nas.detect, run as a user does."""

import json

import cv2
import numpy as np
import pytest

from detector.config.detector import Backbone, Detector, Neck
from nas import detect
from nas.terminal import cli


@pytest.fixture
def called(tmp_path, capsys, untrained_model):
    """Function: flags → (exit code, stdout, stderr); the model has random weights."""
    config = Detector(
        backbone=Backbone(kind="mobilenet_v1", stem=4, widths=(4, 8, 8, 8, 8), depths=(1,) * 5),
        neck=Neck(levels=(4, 5), width=8),
    )
    untrained_model(tmp_path / "runs" / "tiny" / "best", config)

    def call(*flags) -> tuple[int, str, str]:
        code = cli.main(
            detect.make_parser(),
            detect.run,
            [
                "--runs-dir",
                str(tmp_path / "runs"),
                "--tracking-uri",
                "none",
                "--output",
                str(tmp_path / "out"),
                *map(str, flags),
            ],
        )
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 96, 3), np.uint8)
        cv2.imwrite(str(path / f"{i}.png"), pixels)
    return path


LOOSE = ("--confidence", 0.001, "--keep-top-k", 4, "--nms", 0.9, "--batch-size", 2)


def test_a_folder(called, folder, tmp_path):
    code, out, err = called(folder, "--visualize", *LOOSE, "--json", tmp_path / "all.json")
    assert (code, err) == (0, "")
    assert "12 faces in 3 of 3 files" in out and "trial 1 of study tiny" in out
    result = json.loads((tmp_path / "all.json").read_text())
    assert list(result["faces"].values()) == [4, 4, 4] and result["unreadable"] == []
    for i in range(3):
        result = json.loads((tmp_path / "out" / f"{i}.png.json").read_text())
        scores = [face["score"] for face in result["annotations"]]
        assert scores == sorted(scores, reverse=True) and len(scores) == 4
        assert all(0 <= face["bbox"][0] <= face["bbox"][2] <= 96 for face in result["annotations"])
        assert (tmp_path / "out" / f"{i}.png.drawn.jpg").is_file()
    code, out, _ = called(
        folder, "--flip", "--scales", "1,1.5", *LOOSE, "--json", tmp_path / "all.json"
    )
    settings = json.loads((tmp_path / "all.json").read_text())["settings"]
    assert code == 0 and (settings["flip"], settings["scales"]) == (True, [1.0, 1.5])
    code, out, _ = called(folder, "--confidence", 1)  # older files are replaced
    assert code == 0 and ": 0 faces in 3 of 3 files" in out
    assert json.loads((tmp_path / "out" / "0.png.json").read_text())["annotations"] == []


def test_unreadable_files_come_last_and_exit_with_1(called, folder, tmp_path):
    (folder / "1.png").write_bytes(b"")
    code, out, err = called(folder, *LOOSE, "--json", tmp_path / "all.json")
    assert code == 1 and err == "error: 1 of 3 files cannot be read; all others were processed\n"
    assert out.splitlines()[-2:] == [
        "cannot be read:",
        f"  {folder / '1.png'}: not a readable image",
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png.json", "2.png.json"]
    assert len(json.loads((tmp_path / "all.json").read_text())["unreadable"]) == 1


@pytest.mark.parametrize(
    "flags, message",
    [
        (("nowhere",), "no such file or folder"),
        ((), "required"),
        ((".", "--fp16"), "--fp16: needs a GPU"),
        ((".", "--nms", "1.5"), "between 0 and 1"),
        ((".", "--batch-size", "0"), "at least 1"),
        ((".", "--model", "weights.pt"), "an .onnx file"),
    ],
)
def test_an_error_is_one_line(called, folder, monkeypatch, flags, message):
    monkeypatch.chdir(folder)
    code, _, err = called(*flags, *(["--device", "cpu"] if flags else []))
    assert code == 2 and message in err and err.count("\n") == 1
