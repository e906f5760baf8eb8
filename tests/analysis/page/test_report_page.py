"""The first screen of a report, and its table of all trials."""

import re
from dataclasses import replace
from html import unescape

import pytest

from analysis.page.answer_section import answer_section
from analysis.page.page import Page
from analysis.page.report_page import _overview
from analysis.page.search_sections import progress_section
from analysis.page.trials_section import MAX_ROWS, trials_section
from analysis.records.studies import load_study
from analysis.report import write_page
from trials.folders import read_manifest
from trials.objective import Objective
from trials.record import Cost, Status


def text_of(section, *args) -> str:
    """What a section shows, without its markup."""
    page = Page("a page")
    section(page, *args)
    html = re.sub(r"<(script|style).*?</\1>", "", page.html(), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def rows(html: str) -> list[str]:
    return re.findall(r"<tr id=\"t(\d+)\">", html)


def test_the_first_screen_answers(generated_study):
    folder = generated_study("one", 80)
    manifest = replace(
        read_manifest(folder),
        sampler="frugal",
        seed=17,
        images={"train": 1234},
        versions={"torch": "2.15.0", "commit": "0123456789abcdef"},
    )
    manifest.write(folder / "study.json")
    study = load_study(folder.parent, "one")
    best, baseline = study.best_trial, study.front.baseline
    text = text_of(answer_section, study)
    saving = 100 * (best.cost.macs / baseline.cost.macs - 1)
    for wanted in (
        f"Trial {best.number} has the best score: {best.score:.3f} ±{study.choice.deviation:.3f}.",
        f"{best.score - baseline.score:+.3f} against the baseline's {baseline.score:.3f}",
        f"{best.cost.macs / 1e9:.3f} G {saving:+.0f} % against".replace("-", "−"),
        f"{best.cost.params / 1e3:,.1f} k",
        f"{study.choice.probability:.0%}".replace("%", " %"),
        "How sure: ",
        "python -m nas.retrain",
        f"--study one --runs-dir {folder.parent}",
        "sampler frugal, seed 17 · data generated 000000000000 (1,234 train) · started 1970-01-01",
        "torch 2.15.0, commit 0123456789ab ·",
    ):
        assert wanted in text, wanted
    assert " ms" not in text


def test_a_measured_latency_is_shown_and_a_best_baseline_named(generated_study):
    def change(record):
        cost = Cost(params=10_000, macs=10**8, latency_ms=12.34, machine="a machine")
        return record if record.number else record.evolve(cost=cost, speed_score=3.0)

    folder = generated_study("one", 40, change=change)
    text = text_of(answer_section, load_study(folder.parent, "one"))
    assert "The baseline, trial 0, has the best score" in text and "against" not in text
    assert "latency on a machine 12.3 ms" in text


def test_the_table_lists_all_trials_with_their_logs(generated_study):
    def change(record):
        failed = record.evolve(status=Status.FAILED, reason="<b> failed")
        return failed if record.number == 9 else record

    folder = generated_study("one", 11, change=change)
    (folder / "trials" / "0003").mkdir(parents=True)
    (folder / "trials" / "0003" / "log.txt").write_text("epoch 1")
    study = load_study(folder.parent, "one")
    html = write_page([study]).read_text()
    assert sorted(map(int, rows(html))) == list(range(11))
    completed = sorted(study.completed, key=lambda r: -r.score)
    assert rows(html)[: len(completed)] == [str(r.number) for r in completed]
    assert '<a href="trials/0003/log.txt">3</a>' in html and "trials/0004" not in html
    assert "&lt;b&gt; failed" in html and '<a href="trials.csv">' in html
    assert (folder / "trials.csv").read_text().count("\n") == 12


@pytest.mark.slow
def test_a_large_table_shows_the_best_and_says_so(generated_study):
    folder = generated_study("one", MAX_ROWS + 100)
    study = load_study(folder.parent, "one")
    page = Page("a page")
    trials_section(page, study, folder)
    html = page.html()
    assert len(rows(html)) == MAX_ROWS and str(study.best_trial.number) == rows(html)[0]
    assert "The best 500 of 600 trials; the other 100 are in the file." in html


def test_studies_ranked_by_other_scores_are_not_compared_by_score(generated_study):
    one, two = (load_study(generated_study(n, 40).parent, n) for n in ("one", "two"))
    other = replace(two.manifest, objective=Objective(metric="params"))
    told = "ranked by different scores"
    for studies, comparable in (([one, two], True), ([one, replace(two, manifest=other)], False)):
        assert (told in text_of(_overview, studies)) is not comparable
        assert ("which all of them reached" in text_of(progress_section, studies)) is comparable


def test_studies_with_other_proxies_are_not_compared_at_all(generated_study):
    def longer(record):
        return record.evolve(recipe=replace(record.recipe, epochs=300, size=416))

    short = load_study(generated_study("one", 12).parent, "one")
    long = load_study(generated_study("two", 12, change=longer).parent, "two")
    told = "proxies of these studies were not trained alike"
    assert told not in text_of(_overview, [short, short])
    overview = text_of(_overview, [short, long])
    assert told in overview and "300 × 416 px" in overview
