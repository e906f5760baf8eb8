"""python -m detector.cost as its user runs it, and the two counters it compares."""

import json
import subprocess
import sys
from pathlib import Path

import helpers
import pytest
import yaml

from detector.architecture.cost import cost, layer_costs
from detector.architecture.layers import Norm, level_size
from detector.architecture.plan import plan
from detector.cost import main, reason
from detector.network.counters import counters

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("seed", range(4))
def test_the_counters_differ_only_by_element_wise_operations(random_design, seed):
    config, size = random_design(seed), (97, 130)
    kinds = counters(config, size)
    assert sum(by_thop for by_thop, _ in kinds.values()) == cost(config, size)[1]
    elements = sum(
        h * w * leaf.cout
        for name, layer, level in plan(config).uses()
        for _, leaf, at in layer.leaves(level_size(size, level), name)
        if _is_batch_norm(leaf)
        for h, w in [leaf.out(at)]
    )
    assert kinds["BatchNorm2d"] == (4 * elements, 0)
    assert kinds["Conv2d"][0] == kinds["Conv2d"][1]
    assert not any(any(kinds.get(kind, ())) for kind in ("ReLU", "LeakyReLU", "other"))


def _is_batch_norm(leaf) -> bool:
    """Whether a layer is or ends with batch normalisation; thop counts no group normalisation."""
    return isinstance(leaf, Norm) or (getattr(leaf, "norm", False) and leaf.norm_groups is None)


def test_every_difference_has_a_reason():
    assert "no rule" in reason("Deform", 0, 5) and "element-wise" in reason("PReLU", 5, 0)
    assert reason("Linear", 5, 5) == "the same in both"


def test_layers_counters_and_latency(traced_once, tmp_path, capsys):
    path, result = tmp_path / "mine.yaml", tmp_path / "cost.json"
    config = helpers.study_detector(8)
    path.write_text(yaml.safe_dump({"detector": json.loads(json.dumps(config.to_dict()))}))
    assert (
        main(
            [
                str(path),
                "--size",
                "96x64",
                "--per-layer",
                "--latency",
                "--repeats",
                "2",
                "--json",
                str(result),
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    found = json.loads(result.read_text())
    assert (found["params"], found["macs"]) == cost(config, (64, 96))
    assert found["size"] == [96, 64]
    assert [(row["name"], row["params"], row["macs"]) for row in found["layers"]] == layer_costs(
        config, (64, 96)
    )
    assert found["counters"]["thop"] == found["macs"] > found["counters"]["torch"]
    assert f"{found['macs']:,}" in out and "heads.box_deltas.1" in out
    assert "4 for each element" in out and "ONNX Runtime" in out and "1 thread" in out
    for name in ("torch", "onnxruntime"):
        assert 0 < found["latency"][name]["p10_ms"] <= found["latency"][name]["median_ms"]


@pytest.mark.parametrize(
    "argv, says",
    [
        (["nope"], "preset 'nope' is unknown; there are"),
        (["nope.yaml"], "no such file"),
        (["retinaface_mobile025", "--size", "640"], "WIDTHxHEIGHT"),
        (["retinaface_mobile025", "--size", "0x5"], "WIDTHxHEIGHT"),
        (["retinaface_mobile025", "--threads", "0"], "from 1 to"),
    ],
)
def test_mistakes_are_one_line(argv, says, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


@pytest.mark.parametrize("flags", [[], ["--no-latency"]])
def test_latency_is_measured_only_when_asked(flags, tmp_path, capsys):
    result = tmp_path / "cost.json"
    assert main(["yunet_n", "--size", "64x64", "--json", str(result), *flags]) == 0
    assert (
        "latency" not in json.loads(result.read_text()) and "latency" not in capsys.readouterr().out
    )


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "detector.cost", "--help"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--per-layer" in done.stdout and done.stderr == ""
