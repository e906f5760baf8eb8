"""Annotation formats: any into any and back, what each cannot hold, and files with faults."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.base import cli
from detector.base.errors import UserError
from detector.config.recipe import DataChoice
from detector.data.annotations.annotation import Annotation, image_faces
from detector.data.annotations.formats import FORMATS, format_of, read_any
from detector.data.annotations.text_formats import WIDER_FLAGS
from detector.data.convert import find_losses, make_parser, run
from detector.data.open import open_data

pixel = st.integers(-50_000, 2_000_000).map(lambda n: n / 1000)  # files have three decimals
extent = st.integers(-1000, 900_000).map(lambda n: n / 1000)
inside = st.integers(0, 2_000_000).map(lambda n: n / 1000)
point = st.one_of(st.none(), st.tuples(inside, inside))
flags = st.fixed_dictionaries({}, optional={name: st.integers(0, 2) for name in WIDER_FLAGS})


@st.composite
def annotations(draw, landmarks=True, attributes=flags, size=True):
    images = []
    for at in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 3))
        boxes = [draw(st.tuples(pixel, pixel, extent, extent)) for _ in range(count)]
        points = (
            [[p or (np.nan, np.nan) for p in draw(st.tuples(*[point] * 5))] for _ in range(count)]
            if landmarks
            else None
        )
        images.append(
            image_faces(
                f"{draw(st.integers(0, 9))}--Éte/{at} a.jpg",
                boxes,
                points,
                [draw(attributes) for _ in range(count)],
                draw(st.sampled_from([(0, 0), (640, 481)][size == "known" :])) if size else (0, 0),
            )
        )
    return Annotation(images)


score = st.integers(0, 100).map(lambda n: n / 100)
scored = st.fixed_dictionaries({}, optional={"blur_score": score})
HOLDS = {
    "wider": annotations(landmarks=False, size=False),
    "retinaface": annotations(attributes=scored, size=False),
    "scrfd": annotations(attributes=st.just({}), size="known"),
    "json": annotations(attributes=st.one_of(flags, scored)),
    "coco": annotations(attributes=st.one_of(flags, scored)),
}


def through(annotation, name, folder):
    path = folder / "labels"
    path.write_text(FORMATS[name].write(annotation), encoding="utf-8")
    return FORMATS[name].read(path)


@pytest.mark.parametrize("first", HOLDS)
@pytest.mark.parametrize("second", ["json", "coco"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_a_format_holds_comes_back_through_any_that_hold_it(
    tmp_path_factory, first, second, data
):
    folder = tmp_path_factory.mktemp("x")
    annotation = data.draw(HOLDS[first])
    there = through(annotation, first, folder)
    assert find_losses(annotation, there) == {}
    again = through(through(there, second, folder), first, folder)
    assert FORMATS[first].write(again) == FORMATS[first].write(there)
    for a, b in zip(there.labels, again.labels, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
        np.testing.assert_array_equal(a.ignore, b.ignore)


def test_what_a_format_cannot_hold_is_counted(tmp_path):
    points = [[[1, 2], [3, 2], [-4, 3], [1, 5], [3, 5]]]
    before = Annotation(
        [
            image_faces(
                "a/b.jpg",
                [[1, 1, 5, 6]],
                points,
                [{"blur": 2, "pose": 0, "blur_score": 0.5}],
                (20, 10),
            )
        ]
    )
    assert find_losses(before, through(before, "wider", tmp_path)) == {
        "sizes of images": 1,
        "landmarks": 1,
        "blur_score": 1,
    }
    assert find_losses(before, through(before, "retinaface", tmp_path)) == {
        "sizes of images": 1,
        "landmarks": 1,
        "blur": 1,
    }


SCRFD = """# a/b c.jpg 640 480
10 20 30.5 60 1 2 0 3 4 1 -1 -1 -1 5 6 0 7 8 0
1 2 9 9 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1
4 4 8 9 1
# flat.jpg 20 10
"""


def test_scrfd_has_corners_sizes_and_unknown_landmarks(tmp_path):
    path = tmp_path / "labelv2.txt"
    path.write_text("\n" + SCRFD)
    assert format_of(path) == "scrfd"
    first, second = read_any(path).images
    assert (first.name, first.size, second.name, second.size) == (
        "a/b c.jpg",
        (640, 480),
        "flat.jpg",
        (20, 10),
    )
    np.testing.assert_array_equal(first.boxes, [[10, 20, 20.5, 40], [1, 2, 8, 7], [4, 4, 4, 5]])
    np.testing.assert_array_equal(np.isnan(first.landmarks[0]).any(axis=1), [0, 0, 1, 0, 0])
    assert np.isnan(first.landmarks[1:]).all() and len(second.boxes) == 0
    assert first.attributes[0] == {"landmark_flags": [0, 1, 0, 0, 0]}
    assert first.ignore.tolist() == [False, False, True]
    assert FORMATS["scrfd"].write(read_any(path)) == SCRFD
    path.write_text("# a/b.jpg\n1 2 3 4\n")  # no sizes: RetinaFace's
    assert format_of(path) == "retinaface"


@pytest.mark.parametrize(
    "text, says",
    [
        ("# a/b.jpg 9 9\n1 2 3\n", ":2: '1 2 3' is neither '# path width height' nor a face"),
        ("# a/b.jpg 9 9\n1 2 3 4 2\n", ":2: '1 2 3 4 2' is neither"),
        ("# a/b.jpg 9 9\n1 2 3 nan\n", ":2: '1 2 3 nan' is neither"),
        ("# a/b.jpg 9 9\n# a/c.jpg\n", ":2: '# a/c.jpg' instead of '# path width height'"),
        ("# a/b.jpg 9 0\n", ":1: '# a/b.jpg 9 0' instead"),
        ("# a/b.jpg 9 9\n# ./a//b.jpg 9 9\n", ":2: a/b.jpg is listed twice"),
        ("# ../b.jpg 9 9\n", ":1: '../b.jpg' instead of an image's path"),
    ],
)
def test_faults_of_scrfd_are_named_by_their_line(tmp_path, text, says):
    path = tmp_path / "labelv2.txt"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_any(path)
    assert str(error.value).startswith(f"{path}{says}")


def test_hidden_landmarks_are_cocos_visibility(tmp_path):
    path = tmp_path / "label.txt"
    path.write_text("# a/b.jpg\n1 2 3 4 1 1 0 2 1 1 -1 -1 -1 1 2 0 2 2 0 0.25\n")
    coco = json.loads(FORMATS["coco"].write(read_any(path)))
    assert coco["annotations"][0]["keypoints"] == [1, 1, 2, 2, 1, 1, 0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert coco["annotations"][0]["num_keypoints"] == 4
    assert coco["annotations"][0]["bbox"] == [1, 2, 3, 4]
    assert coco["categories"][0]["name"] == "face"


LIST = [
    {
        "file_name": "0--Parade/a.jpg",
        "annotations": [
            {
                "bbox": [449, 330, 571, 720],
                "landmarks": [
                    [488.906, 373.643],
                    [542.089, 376.442],
                    [515.031, 412.83],
                    [485.174, 425.893],
                    [538.357, 431.491],
                ],
            },
            {"bbox": [1, 2, 3, 4]},
        ],
    },
    {"file_name": "0--Parade/b.jpg", "annotations": []},
]


def test_the_list_of_the_lightning_retinaface(tmp_path):
    path = tmp_path / "label.json"
    path.write_text(json.dumps(LIST))
    first, second = read_any(path).labels
    np.testing.assert_array_equal(first.boxes, [[449, 330, 571, 720], [1, 2, 3, 4]])
    np.testing.assert_allclose(first.landmarks[0, 2], (515.031, 412.83), rtol=1e-6)
    assert np.isnan(first.landmarks[1]).all() and len(second.boxes) == 0
    assert json.loads(FORMATS["json"].write(read_any(path))) == LIST


def _list(**face):
    return [{"file_name": "a/b.jpg", "annotations": [{"bbox": [1, 2, 3, 4]}, face]}]


def _coco(images=({"id": 1, "file_name": "a/b.jpg"},), classes=("face",), **face):
    return {
        "images": list(images),
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]} | face],
    }


@pytest.mark.parametrize(
    "content, says",
    [
        (_list(bbox=[1, float("nan"), 3, 4]), "a/b.jpg: face 2: bbox .* four finite numbers"),
        (_list(bbox=[1, 2, 3, 10**400]), "a/b.jpg: face 2: bbox .* four finite numbers"),
        (_list(bbox=[1, 2, 3]), "a/b.jpg: face 2: bbox"),
        (_list(), "a/b.jpg: face 2: bbox None"),
        (_list(bbox=[1, 2, 3, 4], landmarks=[[1, 2]]), "a/b.jpg: face 2: landmarks"),
        ([{"annotations": []}], "image 1: file_name None"),
        ([{"file_name": "../a.jpg"}], "image 1: file_name"),
        ([{"file_name": "a.jpg"}, {"file_name": "a.jpg"}], "image 2: a.jpg is listed twice"),
        ([{"file_name": "a.jpg", "width": 0, "height": 4}], "a.jpg: width 0"),
        ([{"file_name": "a.jpg", "width": 10**30, "height": 4}], "a.jpg: width 1"),
        ({"annotations": []}, "lists images, annotations and categories"),
        (_coco(bbox=[1, 2, float("inf"), 4]), "annotation 7: bbox .* finite"),
        (_coco(image_id=5), "annotation 7: image_id 5 is not among images"),
        (_coco(classes=("person",)), "no class face, only person"),
        (
            _coco(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]),
            "image 2: duplicate id 1",
        ),
        (_coco(keypoints=[1, 2, 3]), "annotation 7: keypoints must be 15"),
    ],
)
def test_faults_are_named_in_one_line(tmp_path, content, says):
    path = tmp_path / "label.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=says) as error:
        read_any(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_cut_json_and_negative_sizes(tmp_path):
    path = tmp_path / "label.json"
    path.write_text(json.dumps(LIST)[:-9])
    with pytest.raises(UserError, match="not valid JSON"):
        read_any(path)
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"not valid JSON .*nested too deeply"):
        read_any(path)
    path.write_text(json.dumps(_coco(bbox=[5, 6, -3, 4])))
    found = read_any(path)
    assert found.dropped == 1 and found.first_dropped == "face 1 of a/b.jpg (5 6 -3 4)"
    assert len(found.labels[0].boxes) == 0


def test_other_classes_of_coco_are_left_out_and_reported(tmp_path):
    path = tmp_path / "label.json"
    path.write_text(json.dumps(_coco(classes=("Person", "Face"))))
    found = read_any(path)
    assert len(found.images[0].boxes) == 0
    assert "other classes than face, or of none in categories, left out: 1" in found.notes[0]
    path.write_text(json.dumps(_coco(iscrowd=1)))
    assert read_any(path).labels[0].ignore.tolist() == [True]


# -- as its user runs it ----------------------------------------------------------------------


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
    source.write_text(json.dumps([{"file_name": "flat.jpg"}]))
    code, _, err = converted(source, target, "--to", "wider")
    assert code == 2 and "event/file.jpg" in err and not target.exists()
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
    (tmp_path / "a.json").write_text(json.dumps(LIST))
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
    source.write_text(json.dumps(LIST))
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


def test_the_real_annotation_is_the_same_after_every_format(wider_root, tmp_path):
    start = wider_root / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    annotation = read_any(start)
    for name in ("coco", "json"):
        annotation = through(annotation, name, tmp_path)
    lines = [line.strip() for line in start.read_text().splitlines()]
    assert FORMATS["wider"].write(annotation).splitlines() == lines
