"""Exported graphs against torch: every ending, any batch and size, and files that are no model."""

import errno
import json
import os

import helpers
import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper

from detector.base.errors import UserError
from detector.boxes.anchors import priors
from detector.boxes.postprocess import postprocess
from detector.config.detector import Anchors, Backbone, Detector, Head, Neck
from detector.config.presets import load_preset
from detector.config.recipe import Evaluation
from detector.export.exporter import check, export
from detector.export.runtime import KEY, POST, Exported, load_exported
from detector.inference.predict import detect_batch
from detector.network.model import build_detector

CONFIG = Detector(
    backbone=Backbone(kind="mobilenet_v1", stem=4, widths=(4, 4, 8, 8, 8), depths=(1, 1, 1, 1, 1)),
    neck=Neck(levels=(4, 5), width=8),
    head=Head(landmarks=True),
    anchors=Anchors(name="single"),
)
SETTINGS = Evaluation(score_threshold=0.5, nms_iou=0.3, keep=7)
FILES = [("model.onnx", post) for post in POST] + [("model.xml", "nms")]


@pytest.fixture(scope="module")
def model():
    """Untrained, its scores spread over (0, 1), far enough apart for one order of them."""
    made = build_detector(CONFIG, seed=3).eval()
    with torch.no_grad():
        for unit in made.heads.class_logits:
            unit.conv.bias.zero_()
            unit.conv.weight *= 300
    return made


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory, traced_once):
    """Function: (file name, post) → path of the exported model; made once."""
    made = {}

    def get(name, post):
        if (name, post) not in made:
            folder = tmp_path_factory.mktemp(post)
            made[name, post] = export(model, CONFIG, folder / name, post, SETTINGS)
        return made[name, post]

    return get


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 75, 110), np.uint8))


@pytest.mark.parametrize("name, post", FILES)
def test_an_export_equals_torch(model, exported, images, name, post):
    path = exported(name, post)
    result = check(model, path)
    assert result.passed and result.compared > 20
    assert max(result.differences.values()) < 0.01
    found = load_exported(path)
    assert found.config == CONFIG and found.graph.settings == SETTINGS
    with torch.inference_mode():
        wanted = postprocess(model(images), priors(CONFIG, (75, 110)), SETTINGS)
    for one, other in zip(found.detections(images, SETTINGS), wanted, strict=True):
        assert 0 < len(one) == len(other) <= 7
        torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-3)
        torch.testing.assert_close(one.landmarks, other.landmarks, rtol=1e-3, atol=1e-2)
    pictures = images.permute(0, 2, 3, 1).numpy()
    for one, other in zip(detect_batch(found, CONFIG, pictures, SETTINGS), wanted):
        assert len(one) == len(other)
    assert len(found.detections(images[:1, :, :1, :1], SETTINGS)) == 1  # one pixel


def test_a_check_sees_other_weights(exported):
    other = build_detector(CONFIG, seed=9)
    assert not check(other, exported("model.onnx", "none")).passed
    assert not check(other, exported("model.onnx", "boxes")).passed
    with torch.no_grad():
        for unit in other.heads.class_logits:  # it finds no face at all
            unit.conv.bias.view(-1, 2)[:, 0] = 50
    failed = check(other, exported("model.onnx", "nms"))
    assert not failed.passed and failed.unmatched > 0


def test_nms_in_the_graph_cannot_be_loosened(exported, images):
    found = load_exported(exported("model.onnx", "nms"))
    strict = found.detections(images, Evaluation(score_threshold=0.6, nms_iou=0.3, keep=2))
    assert all(len(d) <= 2 and (d.scores > 0.6).all() for d in strict)
    for changes in ({"score_threshold": 0.1}, {"nms_iou": 0.5}, {"keep": 8}):
        settings = {"score_threshold": 0.5, "nms_iou": 0.3, "keep": 7} | changes
        with pytest.raises(UserError, match=f"ends with NMS at {next(iter(changes))}"):
            found.detections(images, Evaluation(**settings))


def test_training_mode_is_left_as_it_was(exported):
    model = build_detector(CONFIG).train()
    check(model, exported("model.onnx", "none"))
    assert model.training


def test_other_files_are_refused_in_one_line(exported, tmp_path):
    stranger = tmp_path / "stranger.onnx"
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (1,)) for n in "xy")
    onnx.save(
        helper.make_model(
            helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]),
            ir_version=10,
            opset_imports=[helper.make_opsetid("", 18)],
        ),
        stranger,
    )
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported("model.onnx", "none").read_bytes()[:5000])
    empty = tmp_path / "empty.xml"
    empty.write_text("")
    relabelled = tmp_path / "relabelled.onnx"
    proto = onnx.load(exported("model.onnx", "none"))
    text = json.loads({p.key: p.value for p in proto.metadata_props}[KEY])
    helper.set_model_props(proto, {KEY: json.dumps(text | {"post": "boxes"})})
    onnx.save(proto, relabelled)
    unlabelled = tmp_path / "unlabelled.onnx"
    helper.set_model_props(proto, {KEY: "junk"})
    onnx.save(proto, unlabelled)
    for path, says in (
        (stranger, "another program"),
        (cut, "not a readable model"),
        (empty, "not a readable model"),
        (tmp_path / "no.onnx", "no such file"),
        (tmp_path / "model.pt", "must be an .onnx file"),
        (relabelled, "has outputs class_logits"),
        (unlabelled, "metadata retina-nas is not valid JSON"),
    ):
        with pytest.raises(UserError, match=says) as error:
            load_exported(path)
        assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


def test_an_export_that_cannot_be_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr("detector.export.exporter.onnx_bytes", lambda *_: b"x")
    with pytest.raises(UserError, match="cannot be written"):
        export(model, CONFIG, tmp_path / "nowhere" / "m.onnx")


def test_an_openvino_export_that_fails_leaves_the_older_pair(exported, tmp_path, monkeypatch):
    content = exported("model.onnx", "none").read_bytes()
    monkeypatch.setattr("detector.export.exporter.onnx_bytes", lambda *_: content)
    path = export(None, CONFIG, tmp_path / "m.xml")
    older = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert sorted(older) == ["m.bin", "m.xml"]

    def on_a_full_disk(model, target, **_):
        target.with_suffix(".bin").write_bytes(b"half")
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", on_a_full_disk)
    with pytest.raises(UserError, match=r"m\.xml: cannot be written \(OpenVINO: basic_ios"):
        export(None, CONFIG, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == older

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.undo()
    monkeypatch.setattr("detector.export.exporter.onnx_bytes", lambda *_: content)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        export(None, CONFIG, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == older


def test_an_exported_model_is_no_torch_module_with_weights(exported):
    found = load_exported(exported("model.onnx", "none"))
    assert isinstance(found, Exported) and not list(found.parameters())
    assert found.runtime.startswith("ONNX Runtime ")


@pytest.mark.parametrize("name", ["tiny_ssd300", "damofd_0.5g", "yunet_s"])
def test_every_kind_of_head_exports(shallow_export, name):
    """Hand-made anchors; SCRFD's, shared with scales and distances; points and objectness."""
    net, path = shallow_export(name)
    result = check(net, path)
    assert result.passed, result.differences
    assert load_exported(path).config == helpers.shallow(load_preset(name)[0], 1)
