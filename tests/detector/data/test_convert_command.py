"""The command that converts annotations, as its user runs it, and JSON as a data set's labels."""

import json

import cv2
import numpy as np
import pytest

from detector.base import cli
from detector.config.recipe import DataChoice
from detector.data.annotations.annotation import Annotation, image_faces
from detector.data.annotations.formats import FORMATS, format_of
from detector.data.convert import make_parser, run
from detector.data.open import open_data

CONTENT = [
    {"file_name": "0--Parade/a.jpg", "annotations": [{"bbox": [1, 2, 3, 4]}]},
    {"file_name": "0--Parade/b.jpg", "annotations": []},
]


@pytest.fixture
def converted(capsys):
    def call(*argv) -> tuple[int, str, str]:
        code = cli.main(make_parser(), run, [str(a) for a in argv])
        return (code, *capsys.readouterr())

    return call


def test_a_chain_of_conversions_ends_where_it_began(converted, tmp_path):
    start = tmp_path / "a.txt"
    start.write_text(
        "a/b.jpg\n2\n10 20 30 40 0 1 0 0 2 0\n-4 5 0 8 1 0 0 1 0 0\n"
        "a/none.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    )
    for source, target, to in (
        ("a.txt", "b.json", "coco"),
        ("b.json", "c.json", "json"),
        ("c.json", "d.txt", "wider"),
    ):
        code, out, err = converted(
            tmp_path / source, tmp_path / target, "--to", to, "--json", tmp_path / "result.json"
        )
        assert (code, err) == (0, "")
        assert "2 images, 2 faces" in out and "face 2 of a/b.jpg (-4 5 0 8)" in out
    assert (tmp_path / "d.txt").read_text() == start.read_text()
    assert json.loads((tmp_path / "result.json").read_text())["lost"] == {}
    code, out, _ = converted(tmp_path / "c.json", tmp_path / "e.txt", "--to", "retinaface")
    assert code == 0 and "cannot store expression: 1 lost" in out
    assert [format_of(tmp_path / f) for f in ("a.txt", "b.json", "c.json", "e.txt")] == [
        "wider",
        "coco",
        "json",
        "retinaface",
    ]


def test_an_older_file_is_kept_and_a_failed_one_taken_away(converted, tmp_path):
    source, target = tmp_path / "a.json", tmp_path / "b.txt"
    source.write_text(json.dumps([{"file_name": "party/a\nb.jpg"}]))
    code, _, err = converted(source, target, "--to", "wider")
    assert code == 2 and "cannot be stored as WIDER's text" in err and not target.exists()
    target.write_text("mine")
    code, _, err = converted(source, target, "--to", "json")
    assert code == 2 and "exists already" in err and target.read_text() == "mine"
    code, _, err = converted(tmp_path / "nowhere", tmp_path / "c", "--to", "json")
    assert code == 2 and err.count("\n") == 1 and "cannot be read" in err


@pytest.mark.parametrize(
    "to, name, value, count",
    [
        ("wider", "occlusion", "partial", 1),
        ("wider", "blur", [1], 1),
        ("wider", "pose", True, 0),
        ("retinaface", "blur_score", "low", 1),
        ("retinaface", "blur_score", float("nan"), 1),
        ("retinaface", "landmark_flags", [1, 0], 1),
        ("scrfd", "landmark_flags", "none", 1),
        ("scrfd", "landmark_flags", [0, 0, 0, 0, 10**400], 1),
        ("coco", "landmark_flags", [1], 1),
    ],
)
def test_attributes_of_other_kinds_are_lost_and_counted(
    converted, tmp_path, to, name, value, count
):
    source, target = tmp_path / "a.json", tmp_path / "b"
    face = {"bbox": [1, 2, 3, 4], "landmarks": [[1, 2]] * 5, "attributes": {name: value}}
    image = {"file_name": "a/b.jpg", "width": 9, "height": 9, "annotations": [face]}
    source.write_text(json.dumps([image]))
    code, _, err = converted(source, target, "--to", to, "--json", tmp_path / "result.json")
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "result.json").read_text())["lost"].get(name, 0) == count
    assert FORMATS[to].read(target).images[0].boxes.tolist() == [[1, 2, 2, 2]]


@pytest.mark.parametrize(
    "name, says",
    [
        ("a/b.jpg ", "the name 'a/b.jpg ' would be read back as 'a/b.jpg'; rename the image"),
        ("a/b.jpg\n0\na/c.jpg", "the name 'a/b.jpg\\n0\\na/c.jpg' would be read back as 'a/b.jpg'"),
        ("a/\udcff.jpg", "the line 'a/\\udcff.jpg' is not valid Unicode; rename the image"),
    ],
)
def test_a_name_that_a_format_cannot_store(converted, tmp_path, name, says):
    source, target = tmp_path / "a.json", tmp_path / "b.txt"
    source.write_text(json.dumps([{"file_name": "x/y.jpg"}, {"file_name": name}]))
    code, _, err = converted(source, target, "--to", "wider")
    assert code == 2 and err.count("\n") == 1 and not target.exists()
    assert err.startswith(f"error: {source}: cannot be stored as WIDER's text: {says}")


def test_a_failed_check_leaves_no_file(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    monkeypatch.setattr("detector.data.convert.find_losses", lambda *_: 1 / 0)
    args = [str(tmp_path / "a.json"), str(tmp_path / "b.txt"), "--to", "wider"]
    with pytest.raises(ZeroDivisionError):
        run(make_parser().parse_args(args))
    assert not (tmp_path / "b.txt").exists()


def test_scrfd_needs_the_sizes_of_images(converted, tmp_path):
    source, target = tmp_path / "a.txt", tmp_path / "labelv2.txt"
    source.write_text("# a/b.jpg\n1 2 3 4\n")
    code, _, err = converted(source, target, "--to", "scrfd")
    assert code == 2 and "--images" in err and err.count("\n") == 1 and not target.exists()
    _images(tmp_path / "images", ["a/B.jpg"])  # found though its name is written otherwise
    code, _, _ = converted(source, target, "--to", "scrfd", "--images", tmp_path / "images")
    assert code == 0 and target.read_text() == f"# a/b.jpg 40 30\n1 2 4 6{' -1' * 15}\n"


def _images(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((30, 40, 3), 9, np.uint8))


def test_sizes_from_the_images(converted, tmp_path):
    source = tmp_path / "a.json"
    source.write_text(json.dumps(CONTENT))
    _images(tmp_path / "images", ["0--Parade/a.jpg"])
    code, out, _ = converted(
        source, tmp_path / "b.json", "--to", "coco", "--images", tmp_path / "images"
    )
    assert code == 0 and "1 of 2 images cannot be read" in out
    images = json.loads((tmp_path / "b.json").read_text())["images"]
    assert (images[0]["width"], images[0]["height"]) == (40, 30) and "width" not in images[1]
    code, _, err = converted(source, tmp_path / "c.json", "--to", "coco", "--images", tmp_path)
    assert code == 2 and "none of the 2 images" in err


@pytest.mark.parametrize("name", ["json", "coco"])
@pytest.mark.parametrize(
    "text, folder",
    [
        ("{}/label.json", "{}/images"),
        ("annotations/instances_{}.json", "{}"),
        ("annotations/{}.json", "WIDER_{}/images"),
    ],
)
def test_json_is_read_for_training_and_evaluation(tmp_path, name, text, folder):
    points = np.arange(10.0).reshape(1, 5, 2)
    files = [f"{i}.jpg" for i in range(4)]
    for part in ("train", "val"):
        path = tmp_path / text.format(part)
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            FORMATS[name].write(
                Annotation(
                    [image_faces(file, [[1, 2, 9, 12]], points) for file in files]
                    + [image_faces("gone.jpg", [])]
                )
            )
        )
        _images(tmp_path / folder.format(part), files)
    data = open_data(DataChoice(path=str(tmp_path), holdout=0.25))
    assert (len(data.train), len(data.holdout), len(data.val)) == (3, 1, 4)
    assert data.has_landmarks and data.val.image(0).shape == (30, 40, 3)
    np.testing.assert_array_equal(data.val.labels[0].boxes, [[1, 2, 10, 14]])
    assert [
        "1 of 5 listed images are missing" in line and "gone.jpg" in line for line in data.warnings
    ] == [True, True]


def test_an_annotation_that_was_not_read_is_reported(tmp_path):
    _images(tmp_path / "val" / "images", ["a/b.jpg"])
    (tmp_path / "val" / "label.txt").write_text("# a/b.jpg\n1 2 3 4\n")
    (tmp_path / "val" / "label.json").write_text("[]")
    data = open_data(DataChoice(path=str(tmp_path)), parts=("val",))
    assert "label.txt: read for val" in data.warnings[0] and "label.json" in data.warnings[0]
