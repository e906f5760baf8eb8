"""Damaged files in every command: a clear line for each, and all others are processed."""

import io
import json
import shutil
import struct

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from detector.config.detector import Backbone, Detector, Neck
from detector.config.recipe import DataChoice
from detector.data import convert
from detector.data.cache import cache_images
from detector.data.image_files import read_image, read_size
from detector.data.open import open_data
from detector.data.types import UnreadableImage
from nas import detect, evaluate, export
from nas.terminal import cli

CONFIG = Detector(
    backbone=Backbone(kind="mobilenet_v1", stem=4, widths=(4, 4, 4, 4, 4), depths=(1,) * 5),
    neck=Neck(levels=(5,), width=8),
)


def picture(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (width, height))


def jpeg(*segment: bytes) -> bytes:
    """An image of 60 rows and 80 columns with APP1 segments in its header."""
    data = cv2.imencode(".jpg", picture(60, 80))[1].tobytes()
    head = b"".join(b"\xff\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segment)
    return data[:2] + head + data[2:]


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def cmyk() -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(60, 80)).convert("CMYK").save(file, "JPEG")
    return file.getvalue()


ROTATED = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
DAMAGED = {
    "cut.jpg": jpeg()[:-200],
    "cut_behind_a_thumbnail.jpg": jpeg(b"Exif\0\0" + jpeg())[:-200],
    "half.png": encoded(".png", picture(60, 80))[:-200],
    "empty.jpg": b"",
    "text.jpg": b"<html>",
}
ODD = {  # name → content, (height, width) as stored
    "pixel.png": (encoded(".png", picture(1, 1)), (1, 1)),
    "wide.jpg": (encoded(".jpg", picture(100, 20_000)), (100, 20_000)),
    "tall.jpg": (encoded(".jpg", picture(20_000, 100)), (20_000, 100)),
    "grey.jpg": (encoded(".jpg", picture(60, 80)[..., 0]), (60, 80)),
    "cmyk.jpg": (cmyk(), (60, 80)),
    "turned.jpg": (jpeg(ROTATED), (60, 80)),
    "deep.png": (encoded(".png", picture(60, 80).astype(np.uint16) * 257), (60, 80)),
    "alpha.png": (
        encoded(".png", np.dstack([picture(60, 80)] + [np.zeros((60, 80), np.uint8)])),
        (60, 80),
    ),
    "thumbnail.jpg": (jpeg(b"Exif\0\0" + jpeg()), (60, 80)),
}


@pytest.fixture
def data(tmp_path):
    """A folder in the official layout with all these images in train and in val, one face each."""
    root = tmp_path / "data"
    for part in ("train", "val"):
        folder = root / f"WIDER_{part}" / "images" / "0--Event"
        folder.mkdir(parents=True)
        for name, content in (DAMAGED | {n: c for n, (c, _) in ODD.items()}).items():
            (folder / name).write_bytes(content)
        text = root / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text(
            "".join(
                f"0--Event/{name}\n1\n0 0 40 48 0 0 0 0 0 0\n" for name in sorted([*DAMAGED, *ODD])
            )
        )
    return root


@pytest.fixture
def called(tmp_path, capfd, untrained_model):
    """Function: command, flags → (exit code, stdout, stderr); the model has random weights."""
    untrained_model(tmp_path / "runs" / "tiny" / "best", CONFIG)

    def call(command, *flags) -> tuple[int, str, str]:
        code = cli.main(
            command.make_parser(),
            command.run,
            ["--runs-dir", str(tmp_path / "runs"), "--tracking-uri", "none", *map(str, flags)],
        )
        return (code, *capfd.readouterr())

    return call


# -- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_image_is_reported_with_its_path(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(UnreadableImage) as error:
        read_image(tmp_path / name)
    reason = "a truncated JPEG" if name.endswith("jpg") and "cut" in name else ""
    assert str(error.value).startswith(f"{tmp_path / name}: not a readable image")
    assert reason in str(error.value)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_is_read_as_it_is_stored(tmp_path, name):
    content, size = ODD[name]
    (tmp_path / name).write_bytes(content)
    image = read_image(tmp_path / name)
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert read_size(tmp_path / name) == size[::-1]
    if size == (60, 80) and name not in ("grey.jpg", "cmyk.jpg"):
        assert abs(image.astype(int) - picture(60, 80)).mean() < 6


@pytest.mark.parametrize("flags", [(), ("--test-size", "32x128", "--flip", "--scales", "0.02,1")])
def test_evaluate_scores_all_others(called, data, tmp_path, flags):
    code, out, err = called(evaluate, "--data", data, *flags, "--json", tmp_path / "x.json")
    assert code == 1 and "5 of 14 images cannot be read" in err
    unreadable = out.split("cannot be read:\n")[1].split()
    assert sorted(unreadable) == sorted(f"0--Event/{name}" for name in DAMAGED)
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["images"] == 14 and sorted(result["unreadable"]) == sorted(unreadable)


def test_detect_processes_all_others(called, data, tmp_path):
    code, out, err = called(
        detect,
        data / "WIDER_val",
        "--output",
        tmp_path / "out",
        "--visualize",
        "--confidence",
        0.001,
        "--keep-top-k",
        3,
    )
    assert code == 1 and "5 of 14 files cannot be read; all others were processed" in err
    assert all(f"/{name}: not a readable image" in out for name in DAMAGED)
    for name, (_, (height, width)) in ODD.items():
        result = json.loads((tmp_path / "out" / "images" / "0--Event" / f"{name}.json").read_text())
        if name == "turned.jpg":  # results are for the upright image
            height, width = width, height
        assert (result["height"], result["width"]) == (height, width)
        assert 0 < len(result["annotations"]) <= 3


def test_training_data_leaves_them_out(data, tmp_path):
    opened = open_data(DataChoice(path=str(data), holdout=0.25))
    cached = cache_images(opened.all_train, tmp_path / "cache", 64)
    assert sorted(cached.skipped) == sorted(f"0--Event/{name}" for name in DAMAGED)
    assert sorted(label.name for label in cached.labels) == sorted(f"0--Event/{n}" for n in ODD)
    sizes = {label.name.split("/")[1]: label.size for label in cached.labels}
    assert all(sizes[name] == size[::-1] for name, (_, size) in ODD.items())  # EXIF is ignored


def test_convert_writes_sizes_as_stored(data, tmp_path, capfd):
    text = data / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    code = cli.main(
        convert.make_parser(),
        convert.run,
        [
            str(text),
            str(tmp_path / "x.json"),
            "--to",
            "coco",
            "--images",
            str(data / "WIDER_val" / "images"),
        ],
    )
    assert code == 0 and "5 of 14 images cannot be read" in capfd.readouterr().out
    sizes = {
        image["file_name"].split("/")[1]: (image.get("height"), image.get("width"))
        for image in json.loads((tmp_path / "x.json").read_text())["images"]
    }
    assert all(sizes[name] == size for name, (_, size) in ODD.items())
    assert all(sizes[name] == (None, None) for name in DAMAGED)


# -- annotation -------------------------------------------------------------------------------


def coco(**changed) -> str:
    face = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]} | changed
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a/b.jpg"}],
            "categories": [{"id": 1, "name": "face"}],
            "annotations": [{k: v for k, v in face.items() if v is not ...}],
        }
    )


BAD_ANNOTATION = {
    "wider, NaN": ("a/b.jpg\n1\n1 2 nan 4 0 0 0 0 0 0\n", ":3: "),
    "wider, infinite": ("a/b.jpg\n1\n1 2 inf 4 0 0 0 0 0 0\n", ":3: "),
    "wider, cut": ("a/b.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", ":4: the end"),
    "retinaface, NaN": ("# a/b.jpg\n1 2 nan 4\n", ":2: "),
    "retinaface, NaN landmark": ("# a/b.jpg\n1 2 3 4 " + "nan 1 0 " * 5 + "0.5\n", ":2: "),
    "json, NaN": (
        '[{"file_name": "a/b.jpg", "annotations": [{"bbox": [1, NaN, 3, 4]}]}]',
        "a/b.jpg: face 1: bbox",
    ),
    "json, no bbox": ('[{"file_name": "a/b.jpg", "annotations": [{}]}]', "face 1: bbox None"),
    "coco, NaN": (coco(bbox=[1, 2, float("nan"), 4]), "annotation 7: bbox"),
    "coco, no bbox": (coco(bbox=...), "annotation 7: bbox None"),
    "coco, no image": (coco(image_id=...), "image_id None must be"),
    "coco, unknown image": (coco(image_id=2), "image_id 2 is not among images"),
    "coco, no category": (coco(category_id=...), "category_id None must be"),
    "coco, odd category": (coco(category_id=[1]), "category_id [1] must be"),
    "coco, no images": ('{"annotations": [], "categories": []}', "the lists images, annotations"),
    "coco, cut": (coco()[:-9], "not valid JSON"),
    "nothing": ("", "lists no images"),
}


@pytest.fixture
def annotated(tmp_path):
    """Function: text of an annotation file → (data folder with its one val image, the file)."""

    def make(text: str):
        kind = {"#": "val/label.txt", "[": "val/label.json", "{": "val/label.json"}.get(
            text[:1], "wider_face_split/wider_face_val_bbx_gt.txt"
        )
        images = tmp_path / "set" / ("val" if kind.startswith("val") else "WIDER_val") / "images"
        (images / "a").mkdir(parents=True)
        (images / "a" / "b.jpg").write_bytes(jpeg())
        path = tmp_path / "set" / kind
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return tmp_path / "set", path

    return make


@pytest.mark.parametrize("text, message", BAD_ANNOTATION.values(), ids=BAD_ANNOTATION)
def test_bad_annotation_is_one_line_and_leaves_nothing_behind(
    annotated, called, capfd, text, message
):
    folder, path = annotated(text)
    code, _, err = called(evaluate, "--data", folder)
    assert code == 2 and err.startswith(f"error: {path}") and err.count("\n") == 1
    target = path.with_name("converted.json")
    assert (
        cli.main(convert.make_parser(), convert.run, [str(path), str(target), "--to", "json"]) == 2
    )
    convert_err = capfd.readouterr().err
    assert convert_err.count("\n") == 1 and not target.exists()
    for line in (err, convert_err):
        assert message in line


NEGATIVE = {
    "wider": "a/b.jpg\n2\n9 9 -3 4 0 0 0 0 0 0\n1 2 30 40 0 0 0 0 0 0\n",
    "retinaface": "# a/b.jpg\n9 9 -3 4\n1 2 30 40\n",
    "json": '[{"file_name": "a/b.jpg", "annotations": [{"bbox": [9, 9, 6, 13]}, '
    '{"bbox": [1, 2, 31, 42]}]}]',
    "coco": json.dumps(
        json.loads(coco())
        | {
            "annotations": [
                {"id": i, "image_id": 1, "category_id": 1, "bbox": box}
                for i, box in enumerate(([9, 9, -3, 4], [1, 2, 30, 40]))
            ]
        }
    ),
}


@pytest.mark.parametrize("name", NEGATIVE)
def test_faces_of_negative_size_are_reported_and_the_others_kept(annotated, name):
    folder, path = annotated(NEGATIVE[name])
    opened = open_data(DataChoice(path=str(folder)), parts=("val",))
    assert len(opened.val.labels[0].boxes) == 1
    (warning,) = opened.warnings
    assert warning.startswith(str(path)) and "face 1 of a/b.jpg (9 9 -3 4)" in warning


def test_missing_images_and_unknown_classes_are_reported(annotated):
    content = json.loads(coco())
    content["images"].append({"id": 2, "file_name": "a/gone.jpg"})
    content["annotations"] += [
        {"id": 8, "image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]},
        {"id": 9, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "ignore": 1},
    ]
    folder, path = annotated(json.dumps(content))
    opened = open_data(DataChoice(path=str(folder)), parts=("val",))
    assert opened.val.labels[0].ignore.tolist() == [False, True] and len(opened.val) == 1
    classes, missing = opened.warnings
    assert "of none in categories, left out: 1" in classes and "a/gone.jpg" in missing
    del content["annotations"]
    path.write_text(json.dumps(content))
    assert "has no annotations" in open_data(DataChoice(path=str(folder)), ("val",)).warnings[0]


# -- models -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with files that are not models of this program, or damaged."""
    import openvino

    folder = tmp_path_factory.mktemp("models")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (9,)) for n in "xy")
    weights = numpy_helper.from_array(np.arange(9, dtype=np.float32), "w")
    onnx.save(
        helper.make_model(
            helper.make_graph(
                [helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [weights]
            ),
            ir_version=10,
            opset_imports=[helper.make_opsetid("", 18)],
        ),
        folder / "other.onnx",
    )
    good = folder / "other.xml"
    openvino.save_model(openvino.convert_model(folder / "other.onnx"), good)
    content = (folder / "other.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(content[: len(content) // 2])
    for name in ("text.onnx", "text.xml"):
        (folder / name).write_text("hello")
    for name in ("empty.onnx", "empty.xml"):
        (folder / name).write_bytes(b"")
    shutil.copy(good, folder / "alone.xml")
    shutil.copy(good, folder / "cutbin.xml")
    (folder / "cutbin.bin").write_bytes(good.with_suffix(".bin").read_bytes()[:5])
    (folder / "cut.xml").write_text(good.read_text()[:600])
    (folder / "page.xml").write_text("<html/>")
    return folder


BAD_MODELS = {
    "other.xml": "is a model of another program",
    "other.onnx": "is no known face detector",
    "cut.onnx": "not a readable model",
    "text.onnx": "not a readable model",
    "empty.onnx": "not a readable model",
    "alone.xml": "alone.bin is missing beside it",
    "cutbin.xml": "not a readable model",
    "cut.xml": "not a readable model",
    "text.xml": "not a readable model",
    "empty.xml": "not a readable model",
    "page.xml": "not OpenVINO's XML",
    "none.onnx": "no such file",
}


@pytest.mark.parametrize("name, message", BAD_MODELS.items())
def test_files_that_are_not_models_of_this_program(called, models, data, tmp_path, name, message):
    for command, flags in (
        (evaluate, ("--data", data)),
        (detect, (data, "--output", tmp_path / "out")),
    ):
        code, _, err = called(command, "--model", models / name, *flags)
        assert code == 2 and err.startswith(f"error: {models / name}: ") and message in err
        assert err.count("\n") == 1 and "/src/" not in err  # no messages of the runtimes
    code, _, err = called(
        export, "--format", "onnx", "--checkpoint", models / name, "--output", tmp_path / "x.onnx"
    )
    assert code == 2 and err.count("\n") == 1 and not (tmp_path / "x.onnx").exists()
