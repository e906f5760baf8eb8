"""Graphs in int8: which convolutions they leave in float, and how that is chosen."""

import json
from dataclasses import replace
from pathlib import Path

import helpers
import numpy as np
import onnx
import pytest
import torch

from detector.architecture.layers import Conv
from detector.architecture.plan import plan
from detector.base.errors import UserError
from detector.config.detector import Context
from detector.config.presets import load_preset
from detector.export import int8
from detector.export.exporter import export
from detector.export.int8 import parts, quantize_within, quantizer
from detector.export.int8_onnx import quantize
from detector.export.runtime import KEY, graph_files, load_exported
from detector.network.model import build_detector


@pytest.fixture(scope="module")
def exported(tmp_path_factory, traced_once) -> Path:
    config = load_preset("yunet_n")[0]
    return export(
        build_detector(config).eval(), config, tmp_path_factory.mktemp("int8") / "float.onnx"
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory, traced_once) -> Path:
    """An OpenVINO graph; its depthwise convolutions have lost the names of their weights there."""
    config = load_preset("yunet_n")[0]
    return export(
        build_detector(config).eval(), config, tmp_path_factory.mktemp("int8") / "float.xml"
    )


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (1, 3, 64, 96), dtype=np.uint8) for _ in range(3)]


@pytest.mark.parametrize(
    "preset, levels, post",
    [
        ("yunet_n", 5, "none"),  # rows of several blocks
        ("yunet_s", 5, "boxes"),
        ("retinaface_mobile025", 3, "none"),
        ("damofd_0.5g", 4, "boxes"),
    ],
)
def test_every_convolution_belongs_to_a_part(
    tmp_path, exported, shallow_export, preset, levels, post
):
    if post == "boxes":
        _, path = shallow_export(preset)
    elif preset == "yunet_n":
        path = exported
    else:
        config = helpers.shallow(load_preset(preset)[0], 1)
        path = export(build_detector(config).eval(), config, tmp_path / "x.onnx")
    found = parts(quantizer(path).convolutions(path))
    names = [node.name for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert sorted(name for part in found.values() for name in part) == sorted(names)
    assert list(found)[:levels] == [f"backbone.{level}" for level in range(levels)]
    assert "heads" in found
    assert {part.split(".")[0] for part in found} <= {"backbone", "neck", "context", "heads"}


def test_the_convolutions_of_both_formats_are_the_same(exported, converted):
    weights = [sorted(quantizer(p).convolutions(p).values()) for p in (exported, converted)]
    assert weights[0] == weights[1] and len(weights[0]) == 59
    assert list(parts(quantizer(converted).convolutions(converted))) == [
        *(f"backbone.{level}" for level in range(5)),
        "neck",
        "heads",
    ]


def test_an_openvino_graph_is_nearly_the_same_with_some_parts_in_float(converted, images, tmp_path):
    tool = quantizer(converted)
    names = parts(tool.convolutions(converted))
    before = load_exported(converted, 1)
    gaps = []
    for number, kept in enumerate(((), ("backbone.0", "neck", "heads"), tuple(names))):
        target = tmp_path / f"{number}.xml"
        tool.quantize(converted, target, images, [name for part in kept for name in names[part]])
        weights, before_weights = (graph_files(p)[0].stat().st_size for p in (target, converted))
        assert weights < before_weights or kept == tuple(names)
        after = load_exported(target, 1)
        assert after.config == before.config
        expected, found = before(torch.from_numpy(images[0])), after(torch.from_numpy(images[0]))
        gaps.append({n: float((found[n] - v).abs().mean()) for n, v in expected.items()})
        assert all(gap < 0.2 * expected[n].std() for n, gap in gaps[-1].items())
    assert sum(gaps[0].values()) > sum(gaps[1].values()) > 0
    assert all(gap < 1e-5 for gap in gaps[2].values())


def test_layers_that_levels_share_are_quantised_and_boxes_are_not(tmp_path, images):
    """A shared head and context; calibrated on images of 64×96, whose boxes end there."""
    config = helpers.shallow(load_preset("scrfd_0.5g")[0], 1)
    config = replace(config, context=Context(kind="cascade_shared"))
    path = export(build_detector(config).eval(), config, tmp_path / "float.xml", post="boxes")
    tool = quantizer(path)
    names = tool.convolutions(path)
    leaves = [leaf for use in plan(config).uses() for leaf in use[1].leaves((8, 8), use[0])]
    assert len(names) == sum(isinstance(leaf, Conv) for _, leaf, _ in leaves)
    assert len(names) > len(set(names.values()))
    tool.quantize(path, tmp_path / "int8.xml", images, parts(names)["heads"])
    large = torch.from_numpy(
        np.random.default_rng(2).integers(0, 256, (1, 3, 256, 384), dtype=np.uint8)
    )
    before, after = (load_exported(p, 1)(large)["boxes"] for p in (path, tmp_path / "int8.xml"))
    assert before.max() > 300
    assert (before - after).abs().mean() < 2  # px


def test_a_quantised_graph_is_smaller_and_nearly_the_same(exported, images, tmp_path):
    target = tmp_path / "int8.onnx"
    quantize(exported, target, images)
    assert target.stat().st_size < exported.stat().st_size
    graph = onnx.load(target)
    assert {p.key for p in graph.metadata_props} >= {KEY}
    weights = {i.data_type for i in graph.graph.initializer if "conv.weight_quantized" in i.name}
    assert weights == {onnx.TensorProto.INT8}
    before, after = load_exported(exported, 1), load_exported(target, 1)
    assert after.config == before.config
    seen = torch.from_numpy(images[0])
    other_size = torch.from_numpy(
        np.random.default_rng(1).integers(0, 256, (2, 3, 96, 64), np.uint8)
    )
    for batch in (seen, other_size):
        expected, found = before(batch), after(batch)
        for name, values in expected.items():
            gap = (found[name] - values).abs().mean()
            assert 0 < gap < 0.2 * values.std(), name


def test_parts_that_stay_in_float_keep_their_weights(exported, images, tmp_path):
    target = tmp_path / "int8.onnx"
    names = parts(quantizer(exported).convolutions(exported))
    quantize(exported, target, images, [*names["backbone.0"], *names["heads"]])
    graph = onnx.load(target).graph
    quantised = {i.name for i in graph.initializer if i.name.endswith("conv.weight_quantized")}
    assert quantised
    assert not any(name.startswith(("backbone.stages.0", "heads")) for name in quantised)


@pytest.fixture
def losses(monkeypatch, tmp_path):
    """Function: loss of each part in int8 → arguments of `quantize_within` for a graph like that.
    A file is the list of its parts in int8."""

    def make(loss: dict[str, float], max_loss: float) -> dict:
        class Fake:
            @staticmethod
            def convolutions(path):
                return {part: f"{part}.conv.weight" for part in loss}

            @staticmethod
            def quantize(path, target, images, keep_float=()):
                target.write_text(json.dumps([part for part in loss if part not in keep_float]))

        def evaluate(path: Path) -> dict[str, float]:
            if path.name == "float.onnx":
                return {"easy": 0.8}
            return {"easy": 0.8 - sum(loss[part] for part in json.loads(path.read_text()))}

        monkeypatch.setattr(int8, "quantizer", lambda path: Fake)
        return {
            "path": tmp_path / "float.onnx",
            "target": tmp_path / "int8.onnx",
            "images": [],
            "evaluate": evaluate,
            "max_loss": max_loss,
        }

    return make


@pytest.mark.parametrize(
    "max_loss, float_parts, tried",
    [
        (0.2, (), 1),
        (0.05, ("neck",), 5),
        (0.016, ("neck", "heads"), 6),
        (0.006, ("backbone.0", "neck", "heads"), 7),
    ],
)
def test_the_parts_that_lose_most_stay_in_float(losses, max_loss, float_parts, tried):
    loss = {"backbone.0": 0.01, "neck": 0.08, "context": 0.005, "heads": 0.03}
    arguments = losses(loss, max_loss)
    lines: list[str] = []
    found = quantize_within(**arguments, progress=lines.append)
    in_int8 = [part for part in loss if part not in float_parts]
    assert (found.float_parts, found.tried) == (float_parts, tried)
    assert found.loss == pytest.approx(sum(loss[part] for part in in_int8))
    assert json.loads(arguments["target"].read_text()) == in_int8  # the file is what was measured
    assert len(lines) == tried + 1
    assert [p.name for p in arguments["target"].parent.iterdir()] == ["int8.onnx"]


def test_int8_that_loses_too_much_is_refused_and_leaves_nothing(losses):
    arguments = losses({"neck": 0.1, "heads": 0.2}, 0.01)
    with pytest.raises(UserError, match=r"loses more than 0\.01 of mean AP.*--max-loss"):
        quantize_within(**arguments)
    assert list(arguments["target"].parent.iterdir()) == []


def test_parts_of_no_known_name_come_last():
    """A plugin's convolution whose weight is computed has a generated name."""
    weights = {"a": "val_12", "b": "heads.x.0.weight", "c": "backbone.stages.10.0.conv.weight"}
    weights |= {"d": "model.backbone.stages.2.0.conv.weight", "e": "val_12"}
    assert list(parts(weights).items()) == [
        ("backbone.2", ["d"]),
        ("backbone.10", ["c"]),
        ("heads", ["b"]),
        ("val_12", ["a", "e"]),
    ]
