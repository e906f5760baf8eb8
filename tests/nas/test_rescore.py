"""A study ranked by another formula: scores by hand, ranks, and an unchanged study."""

import json
import sqlite3
from dataclasses import replace
from math import log, log10

import pytest

from analysis.records.load import load_records
from nas import rescore
from nas.terminal import cli
from trials.folders import DATABASE, read_manifest
from trials.growth import Growth
from trials.record import Status


@pytest.fixture
def study(generated_study):
    """Folder of 60 made-up trials."""
    return generated_study("old", 60)


@pytest.fixture
def call(study, tmp_path, capsys):
    """Function: text of the objective's file, further flags → exit code, stdout, stderr, JSON."""

    def run(text: str, *flags: str):
        (tmp_path / "o.yaml").write_text(text)
        code = cli.main(
            rescore.make_parser(),
            rescore.run,
            [
                "--runs-dir",
                str(study.parent),
                "--objective",
                str(tmp_path / "o.yaml"),
                "--json",
                str(tmp_path / "r.json"),
                *flags,
            ],
        )
        result = json.loads((tmp_path / "r.json").read_text()) if code == 0 else None
        return code, *capsys.readouterr(), result

    return run


def test_scores_ranks_and_front_by_hand(study, call):
    before = (study / "study.db").read_bytes()
    code, out, _, result = call(
        "objective: {metric: params, best: 1e5, worst: 1e7, weights: {accuracy: 1, speed: 3}}"
    )
    assert code == 0 and (study / "study.db").read_bytes() == before
    completed = [r for r in load_records(study) if r.status is Status.COMPLETED]
    speed = {r.number: min(max(1 - log(r.cost.params / 1e5) / log(100), 0), 1) for r in completed}
    score = {r.number: 3 * speed[r.number] + r.accuracy_score for r in completed}
    expected = sorted(score, key=lambda number: (-score[number], number))
    assert [row["number"] for row in result["trials"]] == expected
    assert [row["rank"] for row in result["trials"]] == list(range(1, len(expected) + 1))
    assert result["best"]["score"] == pytest.approx(max(score.values()))
    by_old = sorted(completed, key=lambda r: (-r.score, r.number))
    assert {row["number"]: row["old_rank"] for row in result["trials"]} == {
        r.number: rank for rank, r in enumerate(by_old, 1)
    }
    front = {
        a.number
        for a in completed
        if not any(
            (b.accuracy_score, b.cost.params) != (a.accuracy_score, a.cost.params)
            and b.accuracy_score >= a.accuracy_score
            and b.cost.params <= a.cost.params
            for b in completed
        )
    }
    assert set(result["front"]) == front
    assert f"best: trial {expected[0]} " in out and f"--trial {expected[0]}" in out


def test_an_expression_reorders_as_by_hand(study, call):
    code, out, _, result = call(
        "objective:\n  score: hard + 0.5 * easy - 0.4 * log10(params / 1e5)\n  metric: params\n"
    )
    completed = [r for r in load_records(study) if r.status is Status.COMPLETED]
    score = {
        r.number: r.ap["hard"] + 0.5 * r.ap["easy"] - 0.4 * log10(r.cost.params / 1e5)
        for r in completed
    }
    expected = sorted(score, key=lambda number: (-score[number], number))
    before = sorted(completed, key=lambda r: (-r.score, r.number))
    assert code == 0 and expected != [r.number for r in before]
    assert [row["number"] for row in result["trials"]] == expected
    for row in result["trials"]:
        assert row["score"] == pytest.approx(score[row["number"]], abs=1e-12)
    assert result["objective"]["score"].startswith("hard + 0.5 * easy")
    assert "completed trials by hard + 0.5 * easy - 0.4 * log10(params / 1e5)" in out


def test_the_usual_formula_changes_nothing(call):
    _, out, _, result = call("objective: {metric: macs}\nname: a space will do", "--top", "3")
    assert all(
        row["rank"] == row["old_rank"] and row["score"] == pytest.approx(row["old_score"])
        for row in result["trials"]
    )
    assert "as before" in out and f"({len(result['trials']) - 3} more" in out


@pytest.mark.parametrize("name", ["quick", "search_spaces/scrfd.yaml"])
def test_a_search_space_will_do(study, capsys, name):
    words = ["--runs-dir", str(study.parent), "--objective", name, "--top", "2"]
    assert cli.main(rescore.make_parser(), rescore.run, words) == 0
    out = capsys.readouterr().out
    assert "by 1 × speed + 2 × accuracy, speed by macs from 1e+08 (1) to 1e+11 (0)" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective: {metric: latency_ms}", "study old measured no latency_ms for"),
        ("objective: {metric: speed}", "o.yaml:1: objective → metric: 'speed' is not one of macs"),
        ("metric: macs", "o.yaml: objective: missing key"),
        ("objective:\n  weights: {accuracy: -1}", "objective → weights → accuracy: -1 must be at"),
        (
            "objective:\n  score: accuracy - mac",
            "o.yaml:2: objective → score: position 12, at 'mac': mac is unknown; did you mean",
        ),
        ("objective: {score: accuracy - latency_ms / 99}", "study old measured no latency_ms for"),
        (
            "objective: {score: accuracy, weights: {accuracy: 1}}",
            "objective → weights: do not go with score",
        ),
        ("objective: {weight: 2}", "unknown key; did you mean weights?"),
    ],
)
def test_bad_input_is_one_line(call, text, message):
    code, _, err, _ = call(text)
    assert code == 2 and message in err and err.count("\n") == 1


GROWTH = "{base: 0.3, per_decade: 1.5}"


def with_growth(study) -> None:
    """The study ranks by expected scores, as a search of a space with growth does."""
    growth = Growth(base=0.3, per_decade=1.5)
    manifest = read_manifest(study)
    replace(
        manifest,
        objective=replace(manifest.objective, growth=growth),
        data=replace(manifest.data, path="/photographs"),
    ).write(study / "study.json")
    records = [r.evolve(growth=growth) for r in load_records(study)]
    with sqlite3.connect(study / DATABASE) as database:
        database.executemany(
            "UPDATE trial_system_attributes SET value_json = ? "
            "WHERE key = 'record' AND trial_id = ?",
            [(json.dumps(json.dumps(r.to_dict())), r.number + 1) for r in records],
        )
    database.close()


@pytest.mark.parametrize("growth", ["", f", growth: {GROWTH}"])
def test_the_studys_own_objective_changes_nothing(study, call, growth):
    with_growth(study)
    code, out, _, result = call(f"objective: {{metric: macs{growth}}}")
    assert code == 0 and "expected of full trainings" in out and "as before" in out
    for row in result["trials"]:
        assert row["rank"] == row["old_rank"]
        assert row["score"] == pytest.approx(row["old_score"])


def test_weights_apply_to_the_expected_accuracy(study, call):
    with_growth(study)
    _, _, _, result = call("objective: {weights: {accuracy: 1, speed: 0}}")
    completed = {r.number: r for r in load_records(study)}
    for row in result["trials"]:
        record = completed[row["number"]]
        assert row["score"] == pytest.approx((record.score - record.speed_score) / 2)


def test_drawn_scenes_have_no_growth_and_a_short_retrain(study, call):
    _, out, _, result = call(f"objective: {{metric: macs, growth: {GROWTH}}}")
    assert all(row["score"] == pytest.approx(row["old_score"]) for row in result["trials"])
    assert "expected of full" not in out and "--epochs 20" in out


def test_long_proxies_have_no_growth(study, call):
    manifest = read_manifest(study)
    replace(manifest, proxies="long", data=replace(manifest.data, path="/photographs")).write(
        study / "study.json"
    )
    _, out, _, result = call(f"objective: {{metric: macs, growth: {GROWTH}}}")
    assert all(row["score"] == pytest.approx(row["old_score"]) for row in result["trials"])
    assert "expected of full" not in out
