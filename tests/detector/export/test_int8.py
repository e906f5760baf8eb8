"""Graphs in int8: which convolutions they leave in float, and how that is chosen."""

import json
from pathlib import Path

import helpers
import numpy as np
import onnx
import pytest
import torch

from detector.base.errors import UserError
from detector.config.presets import load_preset
from detector.export import int8
from detector.export.exporter import export
from detector.export.int8 import convolutions, quantize, quantize_within
from detector.export.runtime import KEY, load_exported
from detector.network.model import build_detector


@pytest.fixture(scope="module")
def exported(tmp_path_factory, traced_once) -> Path:
    config = load_preset("yunet_n")[0]
    return export(
        build_detector(config).eval(), config, tmp_path_factory.mktemp("int8") / "float.onnx"
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
    found = convolutions(path)
    names = [node.name for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert sorted(name for part in found.values() for name in part) == sorted(names)
    assert list(found)[:levels] == [f"backbone.{level}" for level in range(levels)]
    assert "heads" in found
    assert {part.split(".")[0] for part in found} <= {"backbone", "neck", "context", "heads"}


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
    parts = convolutions(exported)
    quantize(exported, target, images, [*parts["backbone.0"], *parts["heads"]])
    graph = onnx.load(target).graph
    quantised = {i.name for i in graph.initializer if i.name.endswith("conv.weight_quantized")}
    assert quantised
    assert not any(name.startswith(("backbone.stages.0", "heads")) for name in quantised)


@pytest.fixture
def losses(monkeypatch, tmp_path):
    """Function: loss of each part in int8 → arguments of `quantize_within` for a graph like that.
    A file is the list of its parts in int8."""

    def make(loss: dict[str, float], max_loss: float) -> dict:
        def fake(path, target, images, keep_float=()):
            target.write_text(json.dumps([part for part in loss if part not in keep_float]))

        def evaluate(path: Path) -> dict[str, float]:
            if path.name == "float.onnx":
                return {"easy": 0.8}
            return {"easy": 0.8 - sum(loss[part] for part in json.loads(path.read_text()))}

        monkeypatch.setattr(int8, "convolutions", lambda path: {part: [part] for part in loss})
        monkeypatch.setattr(int8, "quantize", fake)
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
    [(0.2, (), 1), (0.05, ("b",), 5), (0.016, ("b", "d"), 6), (0.006, ("a", "b", "d"), 7)],
)
def test_the_parts_that_lose_most_stay_in_float(losses, max_loss, float_parts, tried):
    loss = {"a": 0.01, "b": 0.08, "c": 0.005, "d": 0.03}
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
    arguments = losses({"a": 0.1, "b": 0.2}, 0.01)
    with pytest.raises(UserError, match=r"loses more than 0\.01 of mean AP.*--max-loss"):
        quantize_within(**arguments)
    assert list(arguments["target"].parent.iterdir()) == []
