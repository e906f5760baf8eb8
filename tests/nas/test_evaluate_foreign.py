"""nas.evaluate and nas.detect with ONNX graphs of other programs, run as a user does."""

import json

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from detector.config.presets import load_preset
from nas import detect, evaluate
from nas.evaluation.beside import beside_of
from nas.evaluation.options import preset_settings
from nas.evaluation.subject import load_subject
from nas.models.model_folder import ModelChoice
from nas.terminal import cli

SIDE = 64


@pytest.fixture
def yunet(tmp_path):
    """The path of a graph with YuNet's outputs for images of 64×64: one convolution, and constants
    that show a face of 32×32 px around the middle."""
    outputs, nodes = {}, []
    for stride in (8, 16, 32):
        cells = (SIDE // stride) ** 2
        for name, values in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{name}_{stride}"] = np.zeros((1, cells, values), np.float32)
    outputs["cls_32"][0, 3] = outputs["obj_32"][0, 3] = 0.9
    weights = {"w": np.zeros((2, 3, 3, 3), np.float32)}
    nodes.append(helper.make_node("Conv", ["input", "w"], ["map"], pads=[1] * 4))
    nodes.append(helper.make_node("ReduceMax", ["map"], ["zero"], keepdims=0))
    nodes += [helper.make_node("Add", [f"c_{name}", "zero"], [name]) for name in outputs]
    weights |= {f"c_{name}": value for name, value in outputs.items()}
    graph = helper.make_graph(
        nodes,
        "yunet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "yunet.onnx")
    return tmp_path / "yunet.onnx"


def test_a_foreign_graph_is_scored_like_our_own(tiny_study, yunet, tmp_path, capsys):
    argv = ["--model", str(yunet), "--data", "synthetic", "--beside", str(yunet)]
    argv += ["--tracking-uri", "none", "--runs-dir", str(tmp_path), "--json"]
    assert cli.main(evaluate.make_parser(), evaluate.run, [*argv, str(tmp_path / "e.json")]) == 0
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "e.json").read_text())
    macs = 2 * 27 * 640 * 640
    # constants that vary count as factors of channels
    assert (result["params"], result["macs"]) == (54 + 8, macs)
    assert result["speed_score"] == 1.0  # below 0.1 G MACs
    assert result["score"] == pytest.approx(1.0 + 2 * result["accuracy_score"])
    assert result["latency_size"] == [SIDE, SIDE] and result["test_size"] == "64"
    assert [rule["holds"] for rule in result["rules"]] == [True, None, None, None]
    assert result["beside"]["model"] == "yunet.onnx" and result["beside"]["macs"] == macs
    assert "yunet.onnx (a graph of another program: YuNet)" in out
    assert "evaluation settings of YuNet: long side at most 64 px, " in out and "NMS 0.45" in out
    assert "its input is 64×64, of 0.0002 G MACs" in out and "(one image, 64×64;" in out
    assert "in alternation), this one takes" in out


def test_the_settings_are_the_kinds_own(yunet):
    settings, name = preset_settings(None, yunet)
    published = load_preset("yunet_n")[1].evaluation
    assert (name, settings.size, settings.nms_iou) == ("YuNet", SIDE, published.nms_iou)


def test_what_it_is_timed_beside(tiny_study, yunet, untrained_model, tmp_path):
    subject = load_subject(ModelChoice(model=yunet))
    assert beside_of(subject, None, tmp_path / "empty").title == "retinaface_mobile025"
    assert beside_of(subject, "yunet_s", tmp_path).cost.params == 54_608
    design = tiny_study.records[1].detector
    folder = untrained_model(tmp_path / "runs" / "s" / "best", design, title="the newest")
    assert beside_of(subject, None, tmp_path / "runs").title == "the newest"
    ours = load_subject(ModelChoice(checkpoint=folder / "weights.pt"))
    assert beside_of(ours, None, tmp_path / "runs") is None


def test_faces_in_files(yunet, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8))
    argv = [str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--model", str(yunet)]
    assert cli.main(detect.make_parser(), detect.run, argv) == 0
    (face,) = json.loads(next((tmp_path / "out").glob("a*.json")).read_text())["annotations"]
    assert face["bbox"] == pytest.approx([32, 32, 96, 96]) and face["score"] == pytest.approx(0.81)


def test_an_unknown_graph_is_one_line(yunet, tmp_path, capsys):
    model = onnx.load(yunet)
    del model.graph.output[1:]
    onnx.save(model, yunet)
    argv = ["--model", str(yunet), "--data", "synthetic", "--tracking-uri", "none"]
    assert cli.main(evaluate.make_parser(), evaluate.run, argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "its outputs are cls_8 1×64×1; known are YuNet" in err
