"""Opening a store: where its files are, what a check leaves behind, several processes at once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detector.base.errors import UserError
from trials.tracking import mlflow_store
from trials.tracking.mlflow_store import (
    check_store,
    client,
    experiment_id,
    key_of,
    log,
    sqlite_file,
)

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A fresh store's file, created once, as that takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(f"sqlite:///{path}")
    return path


def test_a_check_creates_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_store("none", "tiny")
    check_store("sqlite:///mlflow.db", None)
    check_store(f"sqlite:///{tmp_path}/other.db", "tiny")
    assert not list(tmp_path.iterdir())


def test_a_check_finds_a_damaged_file_and_a_missing_folder(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match="not a readable database"):
        check_store(f"sqlite:///{tmp_path}/mlflow.db", None)
    with pytest.raises(UserError, match="none is no folder; make or name another place"):
        check_store(f"sqlite:///{tmp_path}/none/mlflow.db", None)


def test_a_store_that_is_read_only_is_one_line(tmp_path, empty_store, monkeypatch):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setattr(mlflow_store.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"mlflow\.db is read-only for this user"):
        client(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_deleted_experiment_is_one_line_and_can_be_restored(tmp_path, empty_store):
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"
    store = client(uri)
    number = experiment_id(store, "tiny")
    store.delete_experiment(number)
    with pytest.raises(UserError) as error:
        check_store(uri, "tiny")
    assert str(error.value) == (
        f"--tracking-uri {uri}: its experiment tiny was deleted; set MLFLOW_TRACKING_URI={uri} and "
        f"restore it by `mlflow experiments restore -x {number}` or remove it for good by `mlflow "
        f"gc --backend-store-uri {uri} --experiment-ids {number}`, or name another store, or none"
    )
    check_store(uri, "other")
    check_store(uri, None)
    store.restore_experiment(number)
    check_store(uri, "tiny")


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////{}/q%3Fx.db", "q?x.db"),
        ("sqlite:////{}/a#b%25 é.db", "a#b% é.db"),
        ("sqlite:////{}/a.db?timeout=5", "a.db"),
    ],
)
def test_the_file_of_a_uri(tmp_path, uri, file):
    assert sqlite_file(uri.format(str(tmp_path)[1:])) == tmp_path / file


def test_a_question_mark_in_a_path_is_not_cut_off_silently(tmp_path):
    with pytest.raises(UserError, match="write %3F"):
        sqlite_file(f"sqlite:///{tmp_path}/q?x/mlflow.db")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "sqlite://", "sqlite:///:memory:"])
def test_stores_that_are_no_files(uri):
    assert sqlite_file(uri) is None


@pytest.mark.parametrize("folder", ["elsewhere", "q?x #100% é"])
def test_artifacts_are_beside_the_store(tmp_path, empty_store, monkeypatch, folder):
    """Wherever the command runs, and existing experiments keep their place."""
    here, there = tmp_path / "here", tmp_path / folder
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    shutil.copy(empty_store, there / "mlflow.db")
    store = client("sqlite:///" + str(there / "mlflow.db").replace("%", "%25").replace("?", "%3F"))
    run = store.create_run(experiment_id(store, "tiny")).info.run_id
    (tmp_path / "front.txt").write_text("front")
    store.log_artifact(run, str(tmp_path / "front.txt"))
    assert [path.name for path in there.rglob("front.txt")] == ["front.txt"]
    assert (there / "mlruns" / "tiny").is_dir()
    assert not list(here.iterdir())
    old = store.create_experiment("old", artifact_location=(tmp_path / "place").as_uri())
    assert experiment_id(store, "old") == old


NAMES = [
    *("width×depth", "width÷depth", "loss (box)", "loss [box]", "head//x", "head/x/", "/x", "//x"),
    *("..x", "../x", "a/../b", "a/./b", ".", "..", "./x", "", "x\n", "x" * 251, "x" * 252),
    *("caf\udce9", "a\tb", "100%", "a`b", "'", '"', "x, y", "a=b", "{x}", "\\x"),
]
"""That MLflow refuses as keys, or may take for another name's file."""


def test_mlflow_takes_every_name_of_a_dimension_and_keeps_them_apart(tmp_path, empty_store):
    from mlflow.utils.validation import _validate_param_name

    store = client(f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}")
    run = store.create_run(experiment_id(store, "tiny")).info.run_id
    fitting = ["neck.width", ".x", "x y", "a/b", "größe:1", "x..", "x-y_z"]
    assert [key_of(name) for name in fitting] == fitting
    keys = [key_of(name) for name in NAMES]
    for key in keys:
        _validate_param_name(key)
    assert len({*keys, *NAMES}) == 2 * len(NAMES)
    many = [f"d{number}" for number in range(101)]  # MLflow takes 100 in one call
    values = {name: f"value {number}" for number, name in enumerate(NAMES + fitting + many)}
    log(store, run, params=values, tags={"caf\udce9": "caf\udce9"})
    data = store.get_run(run).data
    assert sorted(data.params.values()) == sorted(values.values())
    assert data.params["neck.width"] == values["neck.width"]
    assert data.tags[key_of("caf\udce9")] == r"caf\udce9"
    assert key_of("loss (box)") == "loss _box_-ff4683"


@pytest.mark.slow
def test_processes_that_create_one_store_at_once_all_succeed(tmp_path):
    script = f"""
from trials.tracking.mlflow_store import client, experiment_id
print(experiment_id(client("sqlite:///{tmp_path}/mlflow.db"), "tiny"))
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    results = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1
