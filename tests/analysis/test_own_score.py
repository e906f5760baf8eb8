"""A study whose score is an expression: the report and the choice follow it."""

import json
from dataclasses import replace
from math import log10

import pytest

from analysis import choose, report
from analysis.records.load import load_records
from analysis.records.studies import load_study
from nas.terminal import cli
from trials.folders import read_manifest
from trials.objective import Objective
from trials.record import Status

OBJECTIVE = Objective(score="3 * hard - 0.5 * log10(params / 1e5)")


@pytest.fixture
def study(generated_study):
    folder = generated_study("own", 60, change=OBJECTIVE.applied_to)
    replace(read_manifest(folder), objective=OBJECTIVE).write(folder / "study.json")
    return folder


def test_report_and_choice_follow_an_expression(study, tmp_path, capsys):
    completed = [r for r in load_records(study) if r.status is Status.COMPLETED]
    score = {r.number: 3 * r.ap["hard"] - 0.5 * log10(r.cost.params / 1e5) for r in completed}
    best = max(score, key=lambda number: score[number])
    words = ["--runs-dir", str(study.parent), "--json", str(tmp_path / "out.json")]

    assert cli.main(report.make_parser(), report.run, words) == 0
    (summary,) = json.loads((tmp_path / "out.json").read_text())["studies"]
    assert summary["best_trial"] == best
    assert summary["best_score"] == pytest.approx(score[best], abs=1e-12)
    page = (study / "report.html").read_text()
    assert f"score = {OBJECTIVE}." in page and f"{score[best]:.3f}" in page
    found = load_study(study.parent, "own")
    deviation = summary["score_deviation"] / found.comparisons[-1].deviation
    assert deviation == pytest.approx(3)  # by how much the score rises with accuracy

    assert cli.main(choose.make_parser(), choose.run, words) == 0
    first, *_ = candidates = json.loads((tmp_path / "out.json").read_text())["candidates"]
    assert first["number"] == best and f"--trial {best}" in capsys.readouterr().out
    assert {c["number"] for c in candidates} >= {r.number for r in found.front.front}
    assert [c["score"] for c in candidates] == sorted(
        (c["score"] for c in candidates), reverse=True
    )
