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
    assert "24 at most" in output and "\nbaseline " in output
    assert "over max_macs 1,000,000,000" in output
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["designs_at_most"] == 24 and result["draws"] == 40
    assert sum(bin["count"] for bin in result["distribution"]["macs"]["histogram"]) == 40
    quantiles = list(result["distribution"]["params"]["quantiles"].values())
    assert quantiles == sorted(quantiles)
    assert result["legal"] == 1 - result["share_outside"]["max_macs"]


@pytest.mark.parametrize("space", ["retina", "scrfd"])
def test_it_fits_80_columns(space, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main([space, "--draws", "30"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (start,) = (n for n, line in enumerate(lines) if line.startswith("baseline "))
    assert lines[start + 1].startswith("       ")  # the design, on a line of its own


def test_spaces_with_very_many_values_are_counted_at_once(small):
    small.write_text(
        HEAD
        + "  backbone.depth3: {int: [1, 900]}\n  backbone.depth4: {int: [2, 900]}\n"
        + "  neck.width:\n    choice: [16, 32]\n"
        + "    when: {backbone.depth3: 1, backbone.depth4: 2}\n",
        encoding="utf-8",
    )
    space = SearchSpace.load(small)
    assert space.size() == 900 * 899 * 2  # conditions do not count
    assert distinct_designs(space, [{"backbone.depth3": 2, "backbone.depth4": 3}]) is None


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
