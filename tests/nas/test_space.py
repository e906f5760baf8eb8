"""python -m nas.space: counts that are checked by hand, and its output."""

import json

import pytest

from detector.config.detector import arch_hash
from nas.search_space.space import SearchSpace
from nas.space import distinct_designs, histogram, main

HEAD = "name: small\nbaseline: retinaface_mobile025\nproxy: {}\nrungs: [1]\ndimensions:\n"


@pytest.fixture
def small(tmp_path):
    """24 parameters; without a context its activation does not matter: 12 of them are 6 designs."""
    path = tmp_path / "small.yaml"
    path.write_text(
        HEAD
        + """
  neck.width: {choice: [16, 32, 48]}
  context.kind: {choice: [ssh, none]}
  context.activation: {choice: [relu, leaky_relu]}
  head:
    choice:
      own: {head.score: softmax, head.shared: false}
      shared: {head.score: sigmoid, head.shared: true}
"""
    )
    return path


def test_equal_designs_are_counted_once(small):
    space = SearchSpace.load(small)
    assert space.size() == 24
    all_params = [
        {"neck.width": w, "context.kind": c, "context.activation": a, "head": h}
        for w in (16, 32, 48)
        for c in ("ssh", "none")
        for a in ("relu", "leaky_relu")
        for h in ("own", "shared")
    ]
    truth = len({arch_hash(space.resolve(params)[0]) for params in all_params})
    assert truth == 18
    assert distinct_designs(space, all_params) == truth


def test_the_command_prints_and_writes_what_a_space_contains(small, capsys, tmp_path):
    small.write_text(small.read_text() + "constraints: {max_macs: 1_000_000_000}\n")
    assert main([str(small), "--draws", "40", "--json", str(tmp_path / "out.json")]) == 0
    output = capsys.readouterr().out
    assert "24 at most" in output and "(baseline)" in output
    assert "over max_macs 1,000,000,000" in output
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["designs_at_most"] == 24 and result["draws"] == 40
    assert sum(bin["count"] for bin in result["distribution"]["macs"]["histogram"]) == 40
    quantiles = list(result["distribution"]["params"]["quantiles"].values())
    assert quantiles == sorted(quantiles)
    assert result["legal"] == 1 - result["share_outside"]["max_macs"]


def test_an_error_is_reported_with_its_line(small, capsys):
    small.write_text(small.read_text().replace("head.shared: true", "head.shred: true"))
    assert main([str(small)]) == 2
    error = capsys.readouterr().err
    assert f"{small}:13: dimensions → head → choice → shared → head.shred" in error
    assert "did you mean head.shared?" in error and error.count("\n") == 1


@pytest.mark.parametrize("values", [[1], [7, 7, 7], [3, 5, 4.2], [1, 1e4, 250, 20, 50], [99, 100]])
def test_bins_hold_all_values_once(values):
    bins = histogram(values)
    assert sum(count for _, _, count in bins) == len(values)
    assert bins[0][0] <= min(values) and bins[-1][1] >= max(values)
    for low, high, count in bins[:-1]:
        assert count == sum(low <= value < high for value in values)
