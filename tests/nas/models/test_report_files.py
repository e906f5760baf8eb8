"""The network as data, against the cost that is counted and the shapes that are published."""

import json

import pytest

from detector.architecture.cost import cost
from detector.config.presets import PRESETS, load_preset
from nas.models.report_files import network_data, write_network


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_steps_and_layers_add_up_to_the_cost(preset):
    config, _ = load_preset(preset)
    data = network_data(config)
    for rows in (data["layers"], [(s["name"], s["params"], s["macs"]) for s in data["steps"]]):
        assert (sum(row[1] for row in rows), sum(row[2] for row in rows)) == cost(config)


def test_shapes_of_the_baseline():
    config, _ = load_preset("retinaface_mobile025")
    steps = {step["name"]: step for step in network_data(config)["steps"]}
    # Published: 64 channels at stride 8, 128 at 16, 256 at 32; FPN of 64.
    assert [steps[f"backbone.stages.{i}"]["out"] for i in (2, 3, 4)] == [
        [80, 80, 64],
        [40, 40, 128],
        [20, 20, 256],
    ]
    assert steps["backbone.stages.0"]["in"] == [640, 640, 3]
    assert steps["neck.laterals.2"]["out"] == [20, 20, 64]
    assert steps["neck.merges.0"]["what"] == "conv 3×3"
    assert steps["context.blocks.0"]["params"] == 34_752


def test_the_factor_of_each_level_of_a_shared_head_keeps_its_shape():
    steps = {step["name"]: step for step in network_data(load_preset("scrfd_0.5g")[0])["steps"]}
    assert [steps[f"heads.scales.{i}"]["out"] for i in range(3)] == [
        [80, 80, 8],
        [40, 40, 8],
        [20, 20, 8],
    ]  # four sides of two anchors
    assert all(
        steps[f"heads.scales.{i}"]["in"] == steps[f"heads.scales.{i}"]["out"] for i in range(3)
    )


def test_file(tmp_path):
    config, _ = load_preset("retinaface_mobile025")
    assert json.loads(write_network(tmp_path, config).read_text()) == network_data(config)
