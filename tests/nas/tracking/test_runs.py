"""A study, its retrain and its registered model in an MLflow store of its own."""

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.config.recipe import Augmentation, Recipe
from nas import evaluate, retrain, sync
from nas.terminal import cli
from nas.tracking.runs import NEWER_KEYS, _digest, older_keys, track_evaluation

PREDICT = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("detector", "nas", "trials", "analysis", "torch"):
            raise ModuleNotFoundError(f"{name} is not installed here")

sys.meta_path.insert(0, Absent())
import mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/retina-nas@champion")
outputs = model.predict({"images": numpy.load("images.npy")})
numpy.savez("outputs.npz", **outputs)
example = model.predict(model.input_example)
assert set(example) == set(outputs)
print(json.dumps([[spec.name, list(spec.shape)] for spec in model.metadata.signature.inputs]
                 + sorted(outputs)))
"""


@pytest.fixture
def call(tiny_study, tmp_path, monkeypatch, capsys):
    """Function: module, flags → (exit code, stdout, stderr) with the tiny study and one store."""
    monkeypatch.chdir(tmp_path)

    def run(module, *flags: str) -> tuple[int, str, str]:
        # absolute: within one process MLflow caches open stores by their address
        code = cli.main(
            module.make_parser(),
            module.run,
            ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", *flags],
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def runs_of(role: str, folder: Path):
    from trials.tracking.mlflow_store import client

    store = client(f"sqlite:///{folder}/mlflow.db")
    experiment = store.get_experiment_by_name("quick").experiment_id
    return store, store.search_runs([experiment], f"tags.role = '{role}'")


def test_sync_sends_all_of_a_study_and_only_once(call, tmp_path):
    for _ in range(2):
        code, out, err = call(sync, "--json", "s.json")
        assert (code, err) == (0, "") and "has all of study tiny: 3 trials" in out
    assert json.loads((tmp_path / "s.json").read_text())["trials"] == 3
    store, (parent,) = runs_of("study", tmp_path)
    assert {a.path for a in store.list_artifacts(parent.info.run_id)} == {
        "space.yaml",
        "front.csv",
        "trials.csv",
        "front.png",
        "report.html",
    }
    _, trials = runs_of("trial", tmp_path)
    tags_of = {run.data.tags["trial"]: run.data.tags for run in trials}
    assert {number: tags["status"] for number, tags in tags_of.items()} == {
        "0": "completed",
        "1": "completed",
        "2": "infeasible",
    }
    assert [tags_of[n]["on_front"] for n in "012"] == ["False", "True", "False"]
    assert tags_of["2"]["reason"] == "too many"
    history = store.get_metric_history(parent.info.run_id, "hypervolume")
    assert len(history) == 2 and history[-1].value > 0

    for flags, message in (
        (["--study", "other"], "(known: tiny)"),
        (["--tracking-uri", "none"], "nothing to send to"),
        (["--tracking-uri", "file:x"], "keeps no runs in folders"),
    ):
        code, _, err = call(sync, *flags)
        assert code == 2 and message in err and err.count("\n") == 1


def test_a_damaged_store_is_reported_before_anything_is_trained(call, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 500)
    for module, flags in ((sync, []), (retrain, ["--epochs", "1"])):
        code, _, err = call(module, *flags)
        assert code == 2 and "is not a readable database" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_retrain_is_linked_registered_and_predicts_without_this_project(
    call, tiny_study, tmp_path, monkeypatch
):
    import torch

    from detector.boxes.anchors import symbolic_priors
    from detector.boxes.postprocess import postprocess
    from nas.models.model_folder import load_model
    from nas.tracking.registry import SETTINGS

    call(sync)
    monkeypatch.setattr("nas.tracking.runs.finds_nothing", lambda ap: None)  # in two epochs it does
    code, out, err = call(retrain, "--best", "--epochs", "2")
    assert code == 0 and "retina-nas version 1, champion, the first one" in out, err
    store, (run,) = runs_of("retrain", tmp_path)
    _, trials = runs_of("trial", tmp_path)
    (trial,) = [t for t in trials if t.data.tags["trial"] == "1"]
    assert run.data.tags["mlflow.parentRunId"] == trial.info.run_id
    assert trial.data.tags["retrain"] == run.info.run_id and run.info.status == "FINISHED"
    assert run.data.tags["data_fingerprint"] == tiny_study.manifest.data_fingerprint
    losses = store.get_metric_history(run.info.run_id, "loss_total")
    assert [m.step for m in losses] == [1, 2]
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["data_fingerprint"]

    code, _, err = call(evaluate)
    assert (code, err) == (0, "")
    _, (evaluation,) = runs_of("evaluate", tmp_path)
    assert evaluation.data.tags["mlflow.parentRunId"] == trial.info.run_id

    # In a folder from which neither this project nor torch can be imported.
    isolated = tmp_path / "isolated"
    isolated.mkdir()
    model = load_model(tiny_study.folder / "best" / "weights.pt")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 128), dtype=np.uint8)
    np.save(isolated / "images.npy", images)
    (isolated / "predict.py").write_text(PREDICT)
    done = subprocess.run(
        [sys.executable, "-I", "predict.py", f"sqlite:///{tmp_path}/mlflow.db"],
        cwd=isolated,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    inputs_and_outputs = json.loads(done.stdout.splitlines()[-1])
    assert inputs_and_outputs == [["images", [-1, 3, -1, -1]], "boxes", "image", "scores"]
    predicted = np.load(isolated / "outputs.npz")
    with torch.inference_mode():
        expected = postprocess(
            model.net(torch.from_numpy(images)), symbolic_priors(model.config, (96, 128)), SETTINGS
        )
    for index, faces in enumerate(expected):
        selected = predicted["image"] == index
        assert selected.sum() == len(faces)
        order = np.argsort(-predicted["scores"][selected])
        assert predicted["boxes"][selected][order] == pytest.approx(faces.boxes.numpy(), abs=2e-2)

    code, out, _ = call(retrain, "--trial", "0", "--epochs", "1", "--champion")
    assert code == 0 and "version 2, champion as requested" in out
    aliases = store.get_registered_model("retina-nas").aliases
    assert sorted(aliases.values()) == [2, 2] and sorted(aliases)[0] == "champion"
    assert sorted(aliases)[1].startswith("champion-builtin-")
    code, out, _ = call(sync)
    assert code == 0 and "2 retrains, 1 evaluations" in out
    assert len(runs_of("retrain", tmp_path)[1]) == 2 and len(runs_of("evaluate", tmp_path)[1]) == 1
    assert len(store.search_model_versions("name = 'retina-nas'")) == 2


def test_weights_evaluated_again_under_another_path_replace_the_score(tmp_path, monkeypatch):
    """Tags have what has changed, as MLflow refuses another value of a param."""
    from trials.tracking import linked_run
    from trials.tracking.mlflow_store import client
    from trials.tracking.tracker import TrackerUnavailable

    uri, weights = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "weights.pt"
    weights.write_bytes(b"weights")

    def evaluate_at(path: str, images: int, score: float) -> bool:
        result = {
            "model": "m",
            "checkpoint": path,
            "data": "wider",
            "images": images,
            "describe": "d",
            "ground_truth": "official",
            "machine": "cpu",
            **dict.fromkeys(("params", "macs", "latency_ms", "accuracy_score", "speed_score"), 1),
            "score": score,
            "ap": {"easy": 0.5, "medium": 0.5, "hard": 0.5},
            "finished": 1000.0 + score,
        }
        return track_evaluation(uri, tmp_path, result, "0" * 12, weights, None)

    def logged() -> tuple:
        store = client(uri)
        experiment = store.get_experiment_by_name("presets").experiment_id
        (run,) = store.search_runs([experiment])
        tags = {key: run.data.tags.get(key) for key in ("checkpoint", "images", "describe")}
        return run.info.status, run.data.metrics["score"], run.data.params["checkpoint"], tags

    assert evaluate_at("best/weights.pt", 10, 1.0)
    unchanged = {"checkpoint": None, "images": None, "describe": None}
    assert logged() == ("FINISHED", 1.0, "best/weights.pt", unchanged)
    assert evaluate_at("/runs/best/weights.pt", 20, 2.0)
    changed = {"checkpoint": "/runs/best/weights.pt", "images": "20", "describe": None}
    assert logged() == ("FINISHED", 2.0, "best/weights.pt", changed)
    assert evaluate_at("best/weights.pt", 20, 3.0)
    changed["checkpoint"] = "best/weights.pt"
    assert logged() == ("FINISHED", 3.0, "best/weights.pt", changed)

    def refuse(*args, **named):
        raise TrackerUnavailable("refused")

    monkeypatch.setattr(linked_run, "log", refuse)
    assert not evaluate_at("best/weights.pt", 20, 4.0)
    assert logged() == ("FINISHED", 3.0, "best/weights.pt", changed)


def test_newer_keys_of_a_recipe_with_their_defaults_leave_a_retrains_key_as_it_was():
    plain = Recipe().to_dict()
    for path in NEWER_KEYS:
        *sections, key = path.split(".")
        own = plain
        for section in sections:
            own = own[section]
        del own[key]
    assert Recipe.from_dict(plain) == Recipe()
    assert older_keys(Recipe()) == plain
    changed = replace(Recipe(), augmentation=Augmentation(crop="face_centre"))
    assert older_keys(changed) == plain | {
        "augmentation": plain["augmentation"] | {"crop": "face_centre"}
    }


def test_keys_of_a_default_recipe_are_those_of_the_first_version():
    """A key of the recipe that is not among NEWER_KEYS would make older retrains other ones."""
    assert _digest(older_keys(Recipe())) == "136d35ec891643c8"


def test_sync_connects_to_nothing(call, monkeypatch):
    addresses = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: addresses.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: addresses.append(args))
    code, _, err = call(sync)
    assert code == 0, err
    assert addresses == []
