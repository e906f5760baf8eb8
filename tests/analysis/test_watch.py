"""A running search is followed on a page that reloads itself."""

import json
import re
import sqlite3
from dataclasses import replace

import pytest

from analysis import watch
from analysis.records.load import load_records
from detector.base import cli
from trials.folders import DATABASE
from trials.record import Status
from trials.stored import PROGRESS, ProgressFile


def store(folder, change) -> None:
    """Store `change` of each record, as a search would."""
    records = [change(record) for record in load_records(folder)]
    with sqlite3.connect(folder / DATABASE) as database:
        database.executemany(
            "UPDATE trial_system_attributes SET value_json = ? "
            "WHERE key = 'record' AND trial_id = ?",
            [(json.dumps(json.dumps(r.to_dict())), r.number + 1) for r in records],
        )
    database.close()


def unfinished(record):
    return record.evolve(status=Status.RUNNING) if record.number == 3 else record


@pytest.fixture
def follow(tmp_path, monkeypatch, capsys):
    """Function: calls between two looks, one each → (exit code, stdout, stderr, result). After the
    last one the user presses Ctrl-C."""
    monkeypatch.setattr(watch.os, "nice", lambda increment: None)

    def run(*events, flags=()):
        ahead = list(events)

        def sleep(seconds: float) -> None:
            assert seconds == 7
            if not ahead:
                raise KeyboardInterrupt
            ahead.pop(0)()

        monkeypatch.setattr(watch.time, "sleep", sleep)
        words = ["--runs-dir", str(tmp_path / "runs"), "--json", str(tmp_path / "w.json")]
        code = cli.main(watch.make_parser(), watch.run, [*words, "--every", "7", *flags])
        captured = capsys.readouterr()
        path = tmp_path / "w.json"
        return code, captured.out, captured.err, json.loads(path.read_text()) if code == 0 else None

    return run


def test_a_search_is_followed_to_its_end(follow, generated_study):
    folder = generated_study("one", 11, change=unfinished)
    page, pages, stored = folder / "report.html", [], []

    def nothing() -> None:
        pages.append((page.stat().st_mtime_ns, page.read_text()))

    def end() -> None:
        nothing()
        store(folder, lambda r: r.evolve(status=Status.PRUNED) if r.number == 3 else r)
        (folder / "front.csv").write_text("")
        stored.append((folder / DATABASE).read_bytes())

    code, out, err, result = follow(nothing, end)
    assert (code, err, result["ended"]) == (0, "", True)
    (first, text), (second, _) = pages
    assert first == second  # nothing was written as nothing had changed
    assert '<meta http-equiv=refresh content="7">' in text and "reloads itself every 7 s" in text
    assert "1 running" in text and "Which choices matter" not in text and "Next, " not in text
    final = page.read_text()
    assert "http-equiv=refresh" not in final
    assert "Which choices matter" in final and "python -m nas.retrain" in final
    assert f"page: {page}" in out and out.count("best score") == 2 and "has ended" in out
    assert result["best"]["number"] == int(re.search(r"trial (\d+)\)", out)[1])
    assert (folder / DATABASE).read_bytes() == stored[0]  # watching only reads


def test_the_search_itself_says_how_long_it_takes_and_when_it_has_ended(follow, generated_study):
    """Also one that has stopped, so that trials wait for ever and nothing is completed."""
    folder = generated_study(
        "one", 6, change=lambda r: r.evolve(status=Status.PAUSED) if r.epochs else r
    )
    progress, page, seen = ProgressFile(ended=False), folder / "report.html", []
    progress.write(folder / PROGRESS)

    def half_an_hour_left():
        seen.append(page.read_text())
        replace(progress, seconds_left=1800.0).write(folder / PROGRESS)
        store(folder, lambda r: r.evolve(status=Status.RUNNING) if r.number == 1 else r)

    def end():
        seen.append(page.read_text())
        replace(progress, ended=True).write(folder / PROGRESS)

    code, out, err, result = follow(half_an_hour_left, end)
    assert (code, err, result["ended"], result["best"]) == (0, "", True, None)
    assert "min left" not in seen[0] and "6 paused" in seen[0]
    assert re.search("1 running, 5 paused; [0-9]+ epochs; about 30 min left", seen[1])
    assert out.count("about 30 min left") == 1 and out.endswith("the search has ended\n")
    final = page.read_text()
    assert "Nothing to report: study one has no completed trial yet" in final
    assert "http-equiv=refresh" not in final and "left" not in final.split("<body>")[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (3.0, "; less than a minute left"),
        (89 * 60.0, "; about 89 min left"),
        (2.5 * 3600, "; about 2.5 h left"),
    ],
)
def test_time_left(seconds, text):
    assert watch.left_text(ProgressFile(ended=False, seconds_left=seconds)) == text


def test_a_search_without_results_has_a_page_and_ctrl_c_is_no_error(follow, generated_study):
    folder = generated_study(
        "one", 6, change=lambda r: r.evolve(status=Status.PAUSED) if r.epochs else r
    )
    code, out, err, result = follow(lambda: None)
    assert (code, err, result["ended"], result["best"]) == (0, "", False, None)
    assert "6 paused" in out and result["trials"]["paused"] == 6
    page = (folder / "report.html").read_text()
    assert "Nothing to report yet: study one has no completed trial yet (6 paused)" in page
    assert '<meta http-equiv=refresh content="7">' in page


def test_of_an_older_study_ended_means_that_the_results_are_written(generated_study):
    folder = generated_study("one", 6)
    records = load_records(folder)
    assert not watch.has_ended(folder, records)
    (folder / "front.csv").write_text("")
    assert watch.has_ended(folder, records)
    assert not watch.has_ended(folder, [])
    assert not watch.has_ended(folder, [unfinished(r) for r in records])
    later = [r.evolve(ended=4e9) for r in records]  # resumed since
    assert not watch.has_ended(folder, later)


def test_wrong_flags_are_one_line(follow, generated_study):
    generated_study("one", 4)
    for flags, message in ((["--study", "two"], "(known: one)"), (["--every", "0"], "--every")):
        code, _, err, _ = follow(flags=flags)
        assert code == 2 and message in err and err.count("\n") == 1


def test_a_search_that_ends_during_a_look_is_looked_at_again(follow, generated_study, monkeypatch):
    folder = generated_study("one", 11, change=unfinished)
    ProgressFile(ended=False).write(folder / PROGRESS)
    read = watch.read_progress

    def read_and_end(where):
        found = read(where)
        if not found.ended:  # between the two files
            store(folder, lambda r: r.evolve(status=Status.COMPLETED) if r.number == 3 else r)
            ProgressFile(ended=True).write(folder / PROGRESS)
        return found

    monkeypatch.setattr(watch, "read_progress", read_and_end)
    code, _, _, result = follow(lambda: None)
    assert code == 0 and result["ended"] and result["trials"]["running"] == 0
