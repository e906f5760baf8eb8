"""Studies of which there is little or nothing to report: one line, or a page that says so."""

import json
import math
import sqlite3
from dataclasses import replace

import pytest

from analysis import choose, report
from analysis.records.load import load_records
from detector.base import cli
from trials.folders import DATABASE
from trials.record import LEVELS, Status


def rewrite(folder, change):
    """Store other records than a search would: `change` gets each and returns what replaces it."""
    records = [change(record) for record in load_records(folder)]
    with sqlite3.connect(folder / DATABASE) as database:
        database.executemany(
            "UPDATE trial_system_attributes SET value_json = ? "
            "WHERE key = 'record' AND trial_id = ?",
            [(json.dumps(json.dumps(r.to_dict())), r.number + 1) for r in records],
        )
    database.close()


def with_ap(record, change):
    return record.evolve(
        epochs=tuple(e if e.ap is None else replace(e, ap=change(e.ap)) for e in record.epochs)
    )


def run(command, folder):
    return cli.main(
        command.make_parser(),
        command.run,
        ["--runs-dir", str(folder.parent), "--study", folder.name],
    )


@pytest.mark.parametrize("command", [choose, report])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.evolve(status=Status.PRUNED), "no completed trial yet"),
        (
            lambda r: r.evolve(status=Status.INFEASIBLE, epochs=(), reason="over max_params"),
            "all 12 trials are infeasible, the last one with over max_params",
        ),
        (
            lambda r: r if r.number == 0 else r.evolve(status=Status.INFEASIBLE, epochs=()),
            "only one trial",
        ),
        (lambda r: with_ap(r, lambda ap: ap | {"hard": math.nan}), "is missing or no number"),
        (lambda r: with_ap(r, lambda ap: {"easy": ap["easy"]}), "is missing or no number"),
        (lambda r: with_ap(r, lambda ap: dict.fromkeys(LEVELS, "high")), "not a readable study"),
    ],
    ids=["none completed", "infeasible", "one trial", "NaN", "two levels missing", "text"],
)
def test_nothing_to_compare_is_one_line(generated_study, capsys, command, change, message):
    folder = generated_study("odd", 12)
    rewrite(folder, change)
    assert run(command, folder) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_a_trial_whose_ap_is_no_number_is_left_out(generated_study, capsys):
    folder = generated_study("odd", 40)
    completed = [r.number for r in load_records(folder) if r.status is Status.COMPLETED]
    broken = completed[1]
    rewrite(
        folder,
        lambda r: with_ap(r, lambda ap: ap | {"hard": math.nan}) if r.number == broken else r,
    )
    assert run(choose, folder) == 0
    output = capsys.readouterr().out
    assert f"the AP of 1 completed trials (first: trial {broken})" in output
    assert f"front of {len(completed) - 1} completed trials" in " ".join(output.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda r: with_ap(r, lambda ap: dict.fromkeys(LEVELS, 0.5)),
        lambda r: with_ap(r, lambda ap: ap | {"hard": math.nan}) if r.number in (2, 3) else r,
        lambda r: r.evolve(epochs=tuple(replace(e, losses={"total": math.inf}) for e in r.epochs)),
    ],
    ids=["no spread", "some NaN", "infinite losses"],
)
def test_a_report_of_unusual_results_is_complete(generated_study, change):
    folder = generated_study("odd", 40)
    rewrite(folder, change)
    assert run(report, folder) == 0
    assert len(list((folder / "figures").glob("*.png"))) >= 6
