"""Tables of trials fit every terminal and keep their numbers."""

import sys

import helpers
import pytest

from analysis.records.trial_table import NO_TERMINAL, ap_columns, cost_columns, print_table
from trials.record import Cost

NAMES = ["r001", "r012 ="]
DESIGNS = ["yunet w0.5 d1-2-2-1-1-1 tfpn32 P3-P5 octave3", "mnv2 w0.75 d1-2-3-2-2-3-1 " * 4]
COLUMNS = {"score": ["2.525 ±0.012", "1.023 ±0.012"], "retrained": ["–", "2.100"]}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_a_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(
        "a title that is longer than a narrow terminal has room for", NAMES, DESIGNS, COLUMNS
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for word in (*NAMES, *COLUMNS, *COLUMNS["score"], *" ".join(DESIGNS).split()):
        assert word in text


def test_designs_end_the_rows_where_they_fit(capsys):
    print_table("title", NAMES, ["short", "shorter"], COLUMNS)
    assert capsys.readouterr().out.splitlines() == [
        "title",
        "trial          score  retrained  design",
        "r001    2.525 ±0.012          –  short",
        "r012 =  1.023 ±0.012      2.100  shorter",
    ]


def test_without_a_terminal_the_width_is_fixed(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    print_table("title", ["r001"], ["d" * (NO_TERMINAL - 50)], {"score": ["1.0"]})
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_each_column_has_one_unit():
    costs = (
        Cost(params=20_310, macs=186_400_000, latency_ms=2.04),
        Cost(params=27_293_600, macs=44_660_000_000),
    )
    records = [helpers.trial_record(number, cost=cost) for number, cost in enumerate(costs)]
    assert cost_columns(records) == {
        "G MACs": ["0.186", "44.660"],
        "k params": ["20.3", "27,293.6"],
        "ms": ["2.0", "–"],
    }


def test_levels_of_ap(tiny_study):
    completed = [record for record in tiny_study.records if record.ap]
    assert ap_columns(completed)["hard"] == [f"{r.ap['hard']:.3f}" for r in completed]
