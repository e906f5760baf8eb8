"""The GPU report in a dry run: tiny sizes, on the CPU, on the built-in data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("gpu_report.py")
TORCH, OTHER = "initialization torch, seed 0", "initialization torch, seed 1"
PARTS = ("tests", "rates", "parity", "search", "retrain")
LEVELS = ("easy", "medium", "hard")

pytestmark = pytest.mark.slow


def report(*flags) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, flags)], capture_output=True, text=True
    )


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def rendered(out: Path) -> str:
    done = report("--out", out, "--render", "--page", out / "page.md")
    assert done.returncode == 0, done.stderr
    return (out / "page.md").read_text()


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """The folder of a dry run, with ample time for a busy machine."""
    folder = tmp_path_factory.mktemp("gpu") / "out"
    done = report(
        "--tiny",
        "--device",
        "cpu",
        "--out",
        folder,
        "--seconds",
        3000,
        "--parts",
        ",".join(f"{part}:600" for part in PARTS),
    )
    assert done.returncode == 0, done.stdout + done.stderr + (folder / "log.txt").read_text()
    return folder


def test_every_part_is_measured(out):
    found = results(out)
    assert {part: found[part]["state"] for part in PARTS} == dict.fromkeys(PARTS, "done")
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".md") == [
        "log.txt",
        "results.json",
    ]


def test_rates_are_of_steps_training_and_evaluation(out):
    rows = results(out)["rates"]["rows"]
    assert len(rows) == 7
    assert all(row["images a second"] > 0 for row in rows.values())


def test_both_seeds_are_trained_and_scored(out):
    rows = results(out)["parity"]["rows"]
    for seed in (TORCH, OTHER, "initialization he, seed 0"):
        assert rows[seed]["params"] == 426_608
        assert len(rows[seed]["losses"]) == rows[seed]["epochs"] == 1
        assert all(0 <= rows[seed][level] <= 1 for level in LEVELS)
    assert rows[TORCH]["losses"] != rows[OTHER]["losses"]


def test_the_search_is_read_from_its_study(out):
    found = results(out)["search"]
    values = {name: row["value"] for name, row in found["rows"].items()}
    assert values["trials completed"] == len(found["top"]) >= 1
    assert values["trials completed"] + values.get("trials pruned", 0) == 3  # with the baseline
    assert values["trials at once, at most"] >= 1
    assert 0 < values["seconds of a full proxy, median"] < values["seconds, from start to end"]


def test_the_best_design_and_a_preset_are_retrained(out):
    found = results(out)
    rows = found["retrain"]["rows"]
    assert list(rows) == [f"r{found['search']['top'][0]:03d}", "retinaface_mobile025"]
    assert all(0 < row["score"] < 3 for row in rows.values())


def test_page_has_every_part(out):
    page = rendered(out)
    assert "dry run" in page
    for text in (
        "## Tests",
        "| step of yunet_n | ",
        f"| {OTHER} | ",
        "| best score | ",
        "| retinaface_mobile025 | ",
        "0.8147 | 0.7561 | 0.4849",
        "peer's rows are missing",
        "python -m nas.search",
    ):
        assert text in page, text
    assert "not been measured" not in page
    assert str(out.parent) not in page.replace(results(out)["machine"]["command"], "")


def test_page_says_what_is_missing(tmp_path):
    states = {
        "tests": "failed: 1 failed, 2 passed",
        "search": "stopped at its deadline",
        "retrain": "not started: no time was left",
    }
    (tmp_path / "results.json").write_text(
        json.dumps(
            {
                part: {"state": state, "on": "a card", "data": "images", "seconds": 9.0}
                for part, state in states.items()
            }
        )
    )
    page = rendered(tmp_path)
    assert "This part failed: 1 failed, 2 passed." in page
    assert "This part was stopped at its deadline" in page
    assert "This part was not started: no time was left." in page
    assert page.count("This has not been measured.") == 2  # rates, parity


def test_another_call_keeps_the_other_parts(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"rates": {"state": "done", "rows": {}}}))
    done = report("--tiny", "--out", tmp_path, "--parts", "retrain")
    assert done.returncode == 1
    assert "retrain: not started: there is no search with completed trials" in done.stdout
    assert results(tmp_path)["rates"]["state"] == "done"


def test_a_part_is_stopped_at_its_deadline(tmp_path):
    done = report("--tiny", "--device", "cpu", "--out", tmp_path, "--parts", "parity:2")
    assert done.returncode == 1
    found = results(tmp_path)["parity"]
    assert found["state"] == "stopped at its deadline"
    assert found["rows"][TORCH]["note"] == found["state"]
    assert found["seconds"] < 60
