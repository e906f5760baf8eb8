"""What older versions stored is read and resumed; see tests/stored/README.md."""

import json
import os
import sqlite3
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis import choose, report
from analysis.records.load import load_records
from detector.base import cli
from detector.config.detector import arch_hash
from nas import evaluate, export, rescore, retrain, sync
from nas.models.model_folder import load_model
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.folders import read_manifest
from trials.names import describe
from trials.stored import read_metrics

ARCHIVES = sorted((Path(__file__).parents[1] / "stored").glob("study-*.tar.xz"))
BEST = ("--best", "--study", "first", "--epochs", "8", "--size", "160", "--eval-every", "4")
KILLED = ("--trial", "1", "--study", "first", "--epochs", "6", "--size", "64", "--eval-every", "3")
SCORES = ("accuracy_score", "speed_score", "score")
both_studies = pytest.mark.parametrize("study", ["first", "second"])


@dataclass
class Stored:
    """Studies "first" (its search and a retrain were killed) and "second" (finished), unpacked."""

    folder: Path
    expected: dict
    """What the version that stored them reads in them, as tests/stored/expect.py writes it."""

    @property
    def runs(self) -> Path:
        return self.folder / "runs"


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def stored(request, tmp_path) -> Stored:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    _move_artifacts(tmp_path)
    expected = request.param.with_name(request.param.name.replace(".tar.xz", ".json"))
    return Stored(tmp_path, json.loads(expected.read_text()))


def _move_artifacts(folder: Path) -> None:
    """MLflow stores absolute paths of artifacts; they become those of `folder`."""
    store = sqlite3.connect(folder / "mlflow.db")
    with store:
        ((location,),) = store.execute(
            "select artifact_location from experiments where name = 'small'"
        )
        before = str(Path(location).parents[1])
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ):
            store.execute(
                f"update {table} set {column} = replace({column}, ?, ?)", (before, str(folder))
            )
    store.close()


@pytest.fixture
def call(stored, tmp_path):
    """`call(analysis.report, "--study", "first")` → what --json writes."""

    def run(module, *flags: str) -> dict:
        out = tmp_path / "told.json"
        flags = ("--runs-dir", str(stored.runs), "--json", str(out), *flags)
        assert cli.main(module.make_parser(), module.run, list(flags)) == 0
        return json.loads(out.read_text())

    return run


@pytest.fixture
def in_process(stored, capsys, monkeypatch):
    """`in_process(sync, "--study", "first")` → (exit code, stderr) of the command in the folder of
    the studies, without another import of torch and MLflow.

    The store's address is absolute, as MLflow keeps those of a process open by their address."""
    monkeypatch.chdir(stored.folder)

    def run(module, *flags: str) -> tuple[int, str]:
        flags = ("--tracking-uri", f"sqlite:///{stored.folder}/mlflow.db", *flags)
        capsys.readouterr()
        code = cli.main(module.make_parser(), module.run, list(flags))
        return code, capsys.readouterr().err

    return run


def within(old, new) -> bool:
    """Whether `new` has all that `old` has; mappings may have got more keys."""
    if isinstance(old, dict):
        return old.keys() <= new.keys() and all(within(old[key], new[key]) for key in old)
    if isinstance(old, list):
        return len(old) == len(new) and all(map(within, old, new))
    return old == new


def plain(struct) -> dict:
    """As it would be stored now."""
    return json.loads(json.dumps(struct.to_dict()))


def test_the_studies_have_what_can_be_stored(stored):
    """Otherwise the other tests would prove little."""
    first, second = (stored.expected["records"][study] for study in ("first", "second"))
    assert {r["status"] for r in first} == {"completed", "paused", "running", "infeasible"}
    assert {r["status"] for r in second} == {"completed", "pruned", "infeasible"}
    assert {r["source"] for r in first} == {"baseline", "enqueued", "sampled"}
    assert any(r["source"].startswith("study first trial") for r in second)


@both_studies
def test_records_are_read(stored, study):
    records, expected = Study.open(stored.runs, study).records, stored.expected["records"][study]
    assert load_records(stored.runs / study) == records
    assert len(records) == len(expected)
    for record, before in zip(records, expected):
        assert {
            "number": record.number,
            "status": record.status.value,
            "design": record.design,
            "describe": describe(record.detector),
            "source": record.source,
            "reason": record.reason,
            "params": record.params,
            "rung": record.rung,
            "epochs": len(record.epochs),
            "epochs_spent": record.epochs_spent,
            "ap": record.ap,
        } == {key: before[key] for key in before.keys() - {"cost", *SCORES}}
        assert within(before["cost"], record.cost.to_dict())
        for name in SCORES:
            assert getattr(record, name) == before[name] or (
                getattr(record, name) == pytest.approx(before[name], rel=1e-9)
            )


@both_studies
def test_nothing_stored_of_a_record_is_lost(stored, study):
    store = sqlite3.connect(stored.runs / study / "study.db")
    texts = store.execute(
        "select value_json from trial_user_attributes where key = 'record' order by trial_id"
    ).fetchall()
    store.close()
    kept = {}
    for (text,) in texts:
        content = json.loads(json.loads(text))
        for one in content if isinstance(content, list) else [content]:
            kept[one["number"]] = one  # of a trial that was resumed after its end the later one
    records = Study.open(stored.runs, study).records
    assert kept.keys() == {record.number for record in records}
    assert all(within(kept[record.number], plain(record)) for record in records)


@both_studies
def test_parameters_mean_the_same_design_and_recipe(stored, study):
    """By these a resumed search recognises what it has tried."""
    space = SearchSpace.load(stored.runs / study / "space.yaml")
    records = Study.open(stored.runs, study).records
    sampled = [(record, *space.resolve(record.params)) for record in records if record.params]
    assert len(sampled) > 5
    for record, detector, recipe in [(records[0], *space.baseline), *sampled]:
        assert arch_hash(detector) == record.design
        assert plain(recipe) == plain(record)["recipe"]


def test_study_json_and_metrics_json_are_read(stored):
    for study in ("first", "second"):
        folder = stored.runs / study
        content = json.loads((folder / "study.json").read_text())
        assert within(content, plain(read_manifest(folder)))
    folder = stored.runs / "first" / "best"
    assert within(json.loads((folder / "metrics.json").read_text()), plain(read_metrics(folder)))


def outputs_of(net) -> dict:
    """As in tests/stored/expect.py."""
    import torch

    image = torch.arange(3 * 64 * 96).mul(37).remainder(256).to(torch.uint8).view(1, 3, 64, 96)
    with torch.inference_mode():
        outputs = net(image)
    return {
        name: {"shape": list(output.shape), "every_95th": output.flatten()[::95].tolist()}
        for name, output in outputs.items()
    }


def assert_same_outputs(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, output in expected.items():
        assert found[name]["shape"] == output["shape"]
        assert found[name]["every_95th"] == pytest.approx(output["every_95th"], 1e-3, 1e-4)


def test_trained_networks_answer_as_before(stored):
    """The retrained one, and the checkpoints of trials and of the retrain that was killed."""
    models = stored.expected["models"]
    assert {str(path.relative_to(stored.folder)) for path in stored.runs.rglob("*.pt")} == {*models}
    for name, expected in models.items():
        model = load_model(stored.folder / name)
        assert (model.title, describe(model.config)) == (expected["title"], expected["describe"])
        assert_same_outputs(outputs_of(model.net), expected["outputs"])


def test_an_exported_network_answers_as_before(stored):
    from detector.export.runtime import load_exported

    ((name, expected),) = stored.expected["exported"].items()
    assert_same_outputs(outputs_of(load_exported(stored.folder / name)), expected)


def test_a_report_finds_the_same(stored, call):
    (found,) = call(report, "--study", "first")["studies"]
    (expected,) = stored.expected["report"]["studies"]
    for key in ("best_trial", "front", "epochs", "score_deviation"):
        assert found[key] == expected[key]
    for key in ("best_score", "baseline_score", "hypervolume"):
        assert found[key] == pytest.approx(expected[key])


def test_candidates_are_the_same(stored, call):
    found, expected = call(choose, "--study", "first"), stored.expected["choose"]
    for one in found["candidates"] + expected["candidates"]:
        del one["command"]  # names the folder of the studies
    assert within(expected, found)


def test_another_objective_ranks_the_same(stored, call):
    objective = str(stored.folder / "objective.yaml")
    found = call(rescore, "--study", "first", "--objective", objective)
    expected = stored.expected["rescore"]
    assert found["front"] == expected["front"]
    assert [row["number"] for row in found["trials"]] == [r["number"] for r in expected["trials"]]
    for row, before in zip(found["trials"], expected["trials"]):
        for key in ("rank", "old_rank", "score", "old_score", "speed_score"):
            assert row[key] == pytest.approx(before[key])


def test_a_finished_retrain_is_not_repeated(stored, call):
    before = json.loads((stored.runs / "first" / "best" / "metrics.json").read_text())
    found = call(retrain, *BEST, "--resume", "--tracking-uri", "none")
    assert within(before, found) and len(found["epochs"]) == 8  # `finished`, its time, is the same


# -- commands that train and tell MLflow ------------------------------------------------------


def mlflow_runs(folder: Path, study: str, role: str) -> list:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("small").experiment_id
    return client.search_runs([experiment], f"tags.role = '{role}' and tags.study = '{study}'")


def registered_versions(folder: Path) -> set[int]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return {int(model.version) for model in client.search_model_versions("name = 'retina-nas'")}


def assert_mlflow_has_all(folder: Path, study: str) -> None:
    """One run of the study, and under it one of each trial with the status of its record."""
    (parent,) = mlflow_runs(folder, study, "study")
    trials = mlflow_runs(folder, study, "trial")
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert Counter((int(run.data.tags["trial"]), run.data.tags["status"]) for run in trials) == (
        Counter((r.number, r.status.value) for r in load_records(folder / "runs" / study))
    )


@pytest.mark.slow
@both_studies
def test_a_search_is_resumed(stored, command, study):
    folder = stored.runs / study
    before = load_records(folder)
    legal = sum(r.status.value != "infeasible" for r in before)
    code, _, err = command(
        *("nas.search", "--space", folder / "space.yaml", "--study", study, "--resume"),
        *("--trials", legal + 1),  # the baseline comes on top: 2 more
    )
    assert code == 0, err  # without a network Ray complains
    after = load_records(folder)
    assert sum(r.status.value != "infeasible" for r in after) == legal + 2
    assert {r.status.value for r in after} <= {"completed", "pruned", "infeasible"}
    for old, new in zip(before, after):
        assert (new.number, new.design, new.params) == (old.number, old.design, old.params)
        assert new.epochs[: len(old.epochs)] == old.epochs and new.retries == 0
        if old.status.value in ("completed", "infeasible"):
            assert new == old
    assert len({r.identity for r in after}) == len(after)
    assert_mlflow_has_all(stored.folder, study)


@pytest.mark.slow
def test_a_killed_retrain_is_resumed(stored, in_process):
    """And becomes version 2 of the registered model."""
    from detector.weights import checkpoint

    folder = stored.runs / "first" / "retrained"
    history = checkpoint.load(folder / "r001-training" / "last.pt").state["history"]
    assert 1 <= len(history) < 6
    assert in_process(retrain, *KILLED, "--resume") == (0, "")
    metrics = read_metrics(folder / "r001")
    assert [epoch["epoch"] for epoch in metrics.epochs] == [*range(1, 7)]
    assert list(metrics.epochs[: len(history)]) == history
    assert not (folder / "r001-training").exists()
    runs = mlflow_runs(stored.folder, "first", "retrain")
    assert [run.info.status for run in runs] == ["FINISHED"] * 2  # the killed run was resumed
    assert registered_versions(stored.folder) == {1, 2}


@pytest.mark.slow
def test_a_model_is_evaluated_and_exported(stored, in_process, traced_once):
    best = stored.runs / "first" / "best"
    before = json.loads((best / "evaluation.json").read_text())
    exported = ("--model", "runs/first/best/model.onnx", "--data", "synthetic")
    for flags in (exported, ("--study", "first")):
        assert in_process(evaluate, *flags, "--json", "evaluation.json") == (0, "")
        found = json.loads((stored.folder / "evaluation.json").read_text())
        assert found["ap"] == pytest.approx(before["ap"], abs=0.002) and found["ap"]["hard"] > 0.05
        assert (found["params"], found["macs"]) == (before["params"], before["macs"])
    assert [rule["holds"] for rule in found["rules"]] == [r["holds"] for r in before["rules"]]
    assert json.loads((best / "evaluation.json").read_text()) == found
    for name in ("onnx", "openvino"):
        flags = ("--study", "first", "--format", name, "--post", "nms")
        assert in_process(export, *flags) == (0, "")


@pytest.mark.slow
@both_studies
def test_mlflow_is_brought_up_to_date(stored, in_process, study):
    """The old store, twice, and a new one."""
    for _ in range(2):
        assert in_process(sync, "--study", study) == (0, "")
        assert_mlflow_has_all(stored.folder, study)
    assert registered_versions(stored.folder) == {1}
    new = ("--tracking-uri", f"sqlite:///{stored.folder}/new.db", "--json", "told.json")
    assert in_process(sync, "--study", study, *new) == (0, "")
    assert "MLFLOW_TRACKING_URI" not in os.environ  # which later commands would follow
    told = json.loads((stored.folder / "told.json").read_text())
    models = 1 if study == "first" else 0
    assert told["trials"] == len(stored.expected["records"][study])
    assert (told["retrains"], told["evaluations"]) == (models, models)
