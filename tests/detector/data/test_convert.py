"""Annotation formats: any into any and back, what each cannot hold, and files with faults."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.base.errors import UserError
from detector.data import convert
from detector.data.annotations.annotation import Annotation, image_faces
from detector.data.annotations.formats import FORMATS, format_of, read_any
from detector.data.annotations.text_formats import WIDER_FLAGS
from detector.data.convert import find_losses

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


@pytest.mark.parametrize("target", ["wider", "retinaface"])
def test_images_without_a_folder_are_told_where_to_go(tmp_path, target):
    (tmp_path / "l.json").write_text('[{"file_name": "a.jpg", "annotations": []}]')
    flags = [str(tmp_path / "l.json"), str(tmp_path / "x"), "--to", target]
    with pytest.raises(UserError, match=r"by folder, such as party/a\.jpg, and a\.jpg has none"):
        convert.run(convert.make_parser().parse_args(flags))
    assert not (tmp_path / "x").exists()


def test_other_classes_of_coco_are_left_out_and_reported(tmp_path):
    path = tmp_path / "label.json"
    path.write_text(json.dumps(_coco(classes=("Person", "Face"))))
    found = read_any(path)
    assert len(found.images[0].boxes) == 0
    assert "other classes than face, or of none in categories, left out: 1" in found.notes[0]
    path.write_text(json.dumps(_coco(iscrowd=1)))
    assert read_any(path).labels[0].ignore.tolist() == [True]


def test_the_real_annotation_is_the_same_after_every_format(wider_root, tmp_path):
    start = wider_root / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    annotation = read_any(start)
    for name in ("coco", "json"):
        annotation = through(annotation, name, tmp_path)
    lines = [line.strip() for line in start.read_text().splitlines()]
    assert FORMATS["wider"].write(annotation).splitlines() == lines
