"""The report of generated studies by the command: page, pictures, numbers, bad input."""

import json
import re
from pathlib import Path

import cv2
import helpers
import pytest
from plotly.offline import get_plotlyjs

from analysis import choose, report
from analysis.records.load import load_records
from detector.base import cli
from detector.base.cli import quantity
from trials.record import Status


@pytest.fixture
def call(tmp_path, capsys):
    """Function: module, flags → (exit code, stdout, stderr), in the folder of generated studies."""

    def run(module, *flags: str) -> tuple[int, str, str]:
        code = cli.main(
            module.make_parser(), module.run, ["--runs-dir", str(tmp_path / "runs"), *flags]
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def retrained(study, number: int, accuracy: float, folder: str) -> None:
    record = load_records(study)[number]
    (study / folder).mkdir(parents=True)
    metrics = helpers.metrics(
        record.detector,
        title=f"trial {number} of study {study.name}",
        design=record.design,
        ap=dict.fromkeys(("easy", "medium", "hard"), accuracy),
        accuracy_score=accuracy,
        score=record.speed_score + 2 * accuracy,
        finished=5.0,
    )
    metrics.write(study / folder / "metrics.json")


def test_one_study(call, generated_study, tmp_path):
    from nas.models.report_files import write_network

    study = generated_study(
        "one", 80, change=lambda record: infeasible(record) if record.number == 7 else record
    )
    records = load_records(study)
    completed = [r.number for r in records if r.status is Status.COMPLETED]
    for number in completed[1:6]:
        retrained(study, number, records[number].accuracy_score + 0.2, f"retrained/r{number:03d}")
    best = completed[1]
    retrained(study, best, 0.7, "best")
    write_network(study / "best", records[best].detector)
    (study / "best" / "evaluation.json").write_text(
        json.dumps(
            {
                "ap": {"easy": 0.8, "medium": 0.7, "hard": 0.6},
                "accuracy_score": 0.7,
                "score": 2.1,
                "latency_ms": 12.5,
                "machine": "a machine",
                "rules": [
                    {"rule": "at most 45 M parameters", "holds": True, "evidence": "<few> of them"}
                ],
            }
        )
    )
    code, out, err = call(report, "--json", str(tmp_path / "r.json"))
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "r.json").read_text())
    page = (study / "report.html").read_text()
    (summary,) = result["studies"]
    assert summary["best_score"] == max(r.score for r in records if r.status is Status.COMPLETED)
    assert "cannot be told apart" in out or "stands out" in out
    assert len(summary["correlations"]) == 2  # between rungs, and with the retrains
    wanted = (
        "Front",
        "How well low budgets rank designs",
        "Which choices matter",
        "context.kind",
        "Learning curves",
        "The winner",
        "heads.class_logits.0",
        "&lt;few&gt; of them",
        "12.5 ms",
        "SCRFD 0.5G",
        "quoted",
        "infeasible",
    )
    assert [text for text in wanted if text not in page] == []
    library = get_plotlyjs()
    assert (page.count(library), len(page) < 10e6) == (1, True)
    elsewhere = re.findall(r"(?:src|href)=[\"']?(?:https?:)?//.{20}", page.replace(library, ""))
    assert elsewhere == []  # nothing from a network
    pictures = {path.stem: cv2.imread(str(path)) for path in (study / "figures").iterdir()}
    assert set(pictures) == {
        "front-macs",
        "front-params",
        "progress",
        "importances",
        "ranks",
        "curves",
        "spending",
    }
    assert all(picture.std() > 5 for picture in pictures.values())  # something is drawn

    code, out, _ = call(choose, "--study", "one")
    assert code == 0 and f"{records[best].speed_score + 1.4:.3f}" not in out.split("next:")[1]
    assert "python -m nas.retrain --trial" in out and "±" in out


def test_studies_are_compared(call, generated_study):
    for seed, name in enumerate(("one", "two", "three")):
        generated_study(name, 40, seed=seed)
    code, out, err = call(report, "--study", "one", "--study", "two", "--study", "three")
    assert (code, err) == (0, "")
    page = (Path(out.split("page: ")[1].split(" (")[0])).read_text()
    wanted = (
        "attained by half of the studies",
        "hypervolume",
        *(f"Which choices matter · {name}" for name in ("one", "two", "three")),
    )
    assert [text for text in wanted if text not in page] == []
    assert (Path(out.split("pictures: ")[1].split(" (")[0]) / "fronts-macs.png").exists()
    code, _, err = call(report, "--study", "one", "--study", "one")
    assert code == 2 and "given twice" in err


def test_choosing_within_limits(call, generated_study, tmp_path):
    study = generated_study("one", 80)
    code, out, _ = call(
        choose, "--max-macs", "1G", "--min-ap-easy", "0.1", "--json", str(tmp_path / "c.json")
    )
    result = json.loads((tmp_path / "c.json").read_text())
    assert code == 0 and result["candidates"]
    allowed = [
        r
        for r in load_records(study)
        if r.status is Status.COMPLETED and r.cost.macs <= 1e9 and r.ap["easy"] >= 0.1
    ]
    scores = [c["score"] for c in result["candidates"]]
    assert scores == sorted(scores, reverse=True) and scores[0] == max(r.score for r in allowed)
    assert all(c["macs"] <= 1e9 and c["ap"]["easy"] >= 0.1 for c in result["candidates"])
    assert result["candidates"][0]["command"] in out
    for flags, message in (
        (["--max-macs", "1"], "the fewest MACs are"),
        (["--max-macs", "lots"], "must be a number of at least 0"),
        (["--min-ap-hard", "60"], "must be in [0, 1]"),
        (["--max-latency", "20"], "measured no latency"),
    ):
        code, _, err = call(choose, *flags)
        assert code == 2 and message in err and err.count("\n") == 1


def test_amounts():
    for text, value in (("1G", 1e9), ("1.5m", 1.5e6), (".5k", 500), ("20", 20), ("1e9", 1e9)):
        assert quantity(text, "--x") == value


def unfinished(record):
    return record.evolve(status=Status.PAUSED) if record.epochs else record


def infeasible(record):
    return record.evolve(status=Status.INFEASIBLE, epochs=(), reason="50,000,000 parameters")


@pytest.mark.parametrize(
    ("trials", "change", "message"),
    [
        (0, None, "study one has no trial yet"),
        (1, None, "has only one trial"),
        (6, unfinished, "no completed trial yet (6 paused)"),
        (6, infeasible, "all 6 trials are infeasible, the last one with 50,000,000 parameters"),
    ],
    ids=["empty", "one", "none completed", "all infeasible"],
)
@pytest.mark.parametrize("module", [report, choose])
def test_a_study_with_too_few_trials_is_one_line(
    call, generated_study, module, trials, change, message
):
    generated_study("one", trials, **({"change": change} if change else {}))
    code, _, err = call(module, "--study", "one")
    assert code == 2 and message in err and err.count("\n") == 1


def test_unknown_and_damaged_studies_are_one_line(call, generated_study):
    assert "has no study yet" in call(report)[2]
    study = generated_study("one", 4)
    code, _, err = call(report, "--study", "other")
    assert code == 2 and "(known: one)" in err and err.count("\n") == 1
    whole = (study / "study.db").read_bytes()
    for name, content in (
        ("study.db", whole[:9000]),
        ("study.db", b"no database" * 500),
        ("study.db", None),
        ("study.json", b"{"),
    ):
        before = (study / name).read_bytes()
        (study / name).unlink()
        if content is not None:
            (study / name).write_bytes(content)
        for module in (report, choose):
            code, _, err = call(module, "--study", "one")
            assert code == 2 and str(study / name) in err and err.count("\n") == 1
        (study / name).write_bytes(before)
    (study / "best").mkdir()
    (study / "best" / "metrics.json").write_text("{")
    code, _, err = call(report)
    assert code == 2 and "metrics.json: cannot be read" in err
