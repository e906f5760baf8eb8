"""Folders that hold no prediction files, or some, or boxes of another kind."""

import json

import pytest

from detector.config.recipe import DataChoice
from detector.data.open import open_data
from nas import evaluate
from nas.terminal import cli


@pytest.fixture
def scored(tmp_path, capsys):
    """Function: folder and flags → (exit code, stdout, stderr) of nas.evaluate --predictions."""

    def call(folder, *flags: str) -> tuple[int, str, str]:
        argv = ["--predictions", str(folder), "--data", "synthetic", *flags]
        code = cli.main(evaluate.make_parser(), evaluate.run, argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def faces():
    """`<event>/<image>` → x, y, w, h of its faces."""
    labels = open_data(DataChoice()).val.labels
    return {
        label.name.removesuffix(".jpg"): [
            (x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in label.boxes.tolist()
        ]
        for label in labels
    }


def write(folder, faces, path="{event}/{image}.txt", box=lambda x, y, w, h: (x, y, w, h)):
    """A prediction file with the faces themselves for each image."""
    for name, boxes in faces.items():
        event, image = name.split("/")
        file = folder / path.format(event=event, image=image)
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{' '.join(map(str, box(*b)))} {0.9 - 0.001 * i}" for i, b in enumerate(boxes)]
        file.write_text("\n".join([image, str(len(rows)), *rows]) + "\n")
    return folder


LAYOUTS = [
    ("deeper/{event}/{image}.txt", "give {folder}/deeper"),
    ("a/b/{event}/{image}.txt", "give {folder}/a/b"),
    ("{image}.txt", "they lie side by side, without folders of events"),
    ("{event}/{image}.jpg.txt", "their names end in .jpg.txt instead of .txt"),
    ("{event}/{image}.json", "their names end in .json instead of .txt"),
    ("{image}.png.txt", "without folders of events and their names end in .png.txt"),
    ("x{event}/{image}.txt", "they lie in folders with other names than the events"),
    ("{event}/prediction of {image}", "files have other names, such as"),
]


@pytest.mark.parametrize(("layout", "message"), LAYOUTS)
def test_no_image_has_a_file(scored, faces, tmp_path, layout, message):
    folder = write(tmp_path / "found", faces, layout)
    code, out, err = scored(folder)
    assert code == 2 and "AP" not in out and err.count("\n") == 1
    assert message.format(folder=folder) in err
    assert f"{folder}: has no prediction file for any of the {len(faces)} images" in err
    assert f"a file <event>/<image>.txt for each image, such as {next(iter(faces))}.txt" in err


def test_an_empty_folder_and_that_of_one_event(scored, faces, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = scored(tmp_path / "empty")
    assert code == 2 and "the folder is empty" in err
    folder = write(tmp_path / "found", faces)
    event = next(iter(faces)).split("/")[0]
    code, _, err = scored(folder / event)
    assert code == 2 and f"this is the folder of one event: give {folder.resolve()}" in err


def test_a_part_of_the_images_has_files(scored, faces, tmp_path):
    folder = write(tmp_path / "found", faces)
    first, second, *_ = faces
    for name in (first, second):
        (folder / f"{name}.txt").unlink()
    code, out, err = scored(folder, "--json", str(tmp_path / "e.json"))
    assert code == 1 and "AP       easy 0.9" in out
    assert err == (
        f"error: 2 of {len(faces)} images have no prediction file, the first is {first}; they "
        "count as having no detections\n"
    )
    result = json.loads((tmp_path / "e.json").read_text())
    assert (result["missing"], result["images"]) == (2, len(faces))


def test_boxes_of_another_kind(scored, faces, tmp_path):
    right = write(tmp_path / "right", faces)
    code, out, _ = scored(right)
    assert code == 0 and "note" not in out and "mean 1.0000" in out
    fractions = write(tmp_path / "fractions", faces, box=lambda *box: [v / 1000 for v in box])
    assert "they seem to be fractions of the image's size" in scored(fractions)[1]
    corners = write(tmp_path / "corners", faces, box=lambda x, y, w, h: (x, y, x + w, y + h))
    code, out, _ = scored(corners)
    assert code == 0 and "the boxes seem to be x1 y1 x2 y2" in out
    assert "their mean AP is 1.0000" in out
    none = write(tmp_path / "none", {name: [] for name in faces})
    assert "none of the prediction files has a box" in scored(none)[1]


def test_without_faces_that_count_nothing_is_scored(scored, faces, tmp_path, monkeypatch):
    folder = write(tmp_path / "found", faces)
    heights = {"easy": 1e6, "medium": 31, "hard": 11}
    monkeypatch.setattr("detector.metrics.wider.MIN_HEIGHTS", heights)
    code, out, _ = scored(folder)
    assert code == 0 and "val images have no face that counts as easy" in out
    heights |= {"medium": 1e6, "hard": 1e6}
    code, out, err = scored(folder)
    assert code == 2 and "AP" not in out and "none of which counts at any level" in err
