"""nas.detect, run as a user does."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest

from detector.base.errors import UserError
from detector.config.detector import Backbone, Detector, Neck
from detector.inference.media import find_sources
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


def test_the_built_in_scenes_need_no_files(called, tmp_path):
    code, out, err = called("synthetic", "--visualize", *LOOSE)
    assert (code, err) == (0, "") and "in 6 of 6 files" in out
    out = tmp_path / "out"
    names = {f"{number}.png" for number in range(6)}
    assert {path.name for path in (out / "scenes").iterdir()} == names
    assert {path.name for path in out.glob("*.drawn.jpg")} == {f"{n}.drawn.jpg" for n in names}
    assert cv2.imread(str(out / "scenes" / "0.png")).std() > 10
    (tmp_path / "file").write_text("")
    code, _, err = called("synthetic", "--output", tmp_path / "file")
    assert code == 2 and err.count("\n") == 1 and "--output" in err


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


def test_videos_that_cannot_be_drawn_come_last_too(called, folder, tmp_path):
    writer = cv2.VideoWriter(str(folder / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 1))
    writer.write(np.zeros((1, 64, 3), np.uint8))
    writer.release()
    (folder / "1.png").write_bytes(b"")
    code, out, err = called(folder, "--visualize", *LOOSE)
    assert code == 1 and "in 3 of 4 files" in out
    assert err == (
        "error: 1 of 4 files cannot be read and 1 of 4 files cannot be drawn; all others were "
        "processed\n"
    )
    assert f"cannot be drawn:\n  {folder / 'a.avi'}: OpenCV writes no video of 64×1 px" in out


def test_drawn_copies_of_an_earlier_run_are_not_read(called, folder, tmp_path):
    for output in (folder, folder / "found", folder / "found"):
        code, out, _ = called(folder, "--visualize", *LOOSE, "--output", output)
        assert code == 0 and "12 faces in 3 of 3 files" in out
    assert f"note: {folder}: 6 files skipped, as they are drawn copies of an earlier run" in out
    assert len(list((folder / "found").iterdir())) == 6


def test_files_that_are_skipped_are_counted(called, folder):
    for name in ("a.heic", "b.heic", "c.txt", "plain", ".hidden"):
        (folder / name).write_text("")
    shutil.copy(folder / "0.png", folder / "d.JFIF")
    (folder / "e.gif").write_bytes(cv2.imencode(".gif", np.zeros((64, 96, 3), np.uint8))[1])
    code, out, _ = called(folder, *LOOSE)
    assert code == 0 and "in 5 of 5 files" in out
    assert (
        f"note: {folder}: 4 files skipped, as their names are not those of images or videos that "
        "are read: .heic (2), .txt (1), no suffix (1)\n"
    ) in out
    for path in folder.glob("*.[pJg]*"):
        path.unlink()
    code, _, err = called(folder, *LOOSE)
    assert code == 2 and "no images or videos" in err and ".heic (2)" in err


def test_links_and_pipes_in_a_folder(called, folder, tmp_path):
    (tmp_path / "far").mkdir()
    (folder / "2.png").rename(tmp_path / "far" / "2.png")
    (folder / "far").symlink_to(tmp_path / "far")
    (folder / "far" / "circle").symlink_to(folder)
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mp4")
    code, out, err = called(folder, *LOOSE)
    assert code == 1 and "12 faces in 3 of 5 files" in out and err.startswith("error: 2 of 5")
    assert "gone.png: is a link to nowhere, which does not exist" in out
    assert "pipe.mp4: is a named pipe, not a file" in out
    assert (tmp_path / "out" / "far" / "2.png.json").is_file()


def test_a_closed_folder_is_listed_among_what_cannot_be_read(public_path, closed):
    (public_path / "in" / "b").mkdir(parents=True)
    (public_path / "in" / "a.png").write_bytes(b"")
    notes, unreadable = [], []
    with closed(public_path / "in" / "b"):
        found = find_sources([public_path / "in"], notes, unreadable)
    assert [source.name for source in found] == ["a.png"] and notes == []
    assert len(unreadable) == 1 and "in/b: no permission; allow it with chmod" in unreadable[0]
    with closed(public_path / "in"), pytest.raises(UserError, match="in: no permission"):
        find_sources([public_path / "in"])


@pytest.mark.parametrize(
    "flags, message",
    [
        (("nowhere",), "no such file or folder"),
        ((), "required"),
        ((".", "--fp16"), "--fp16: needs a GPU"),
        ((".", "--nms", "1.5"), "between 0 and 1"),
        ((".", "--batch-size", "0"), "whole number from 1"),
        ((".", "--model", "weights.pt"), "an .onnx file"),
    ],
)
def test_an_error_is_one_line(called, folder, monkeypatch, flags, message):
    monkeypatch.chdir(folder)
    code, _, err = called(*flags, *(["--device", "cpu"] if flags else []))
    assert code == 2 and message in err and err.count("\n") == 1
