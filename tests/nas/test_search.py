"""python -m nas.search, run as a user does: with Ray, storage and MLflow."""

import json
import os
import re
import shlex
import signal
import time
from pathlib import Path

import helpers
import pytest

from analysis.records.load import load_records
from detector.config.recipe import DataChoice
from nas.engine.driver import TrialSetup
from trials.record import Status
from trials.stored import read_progress

SEARCH = ("nas.search", "--space", "tiny.yaml", "--data", "synthetic", "--fraction", "0.3")


def mlflow_runs(folder):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    return client, client.search_runs([experiment.experiment_id])


def test_search_resume_and_extend(command, tiny_space, tmp_path):
    code, out, err = command(*SEARCH, "--trials", "3", "--study", "one", "--json", "r.json")
    assert code == 0, err
    # Ray warns about having only loopback
    assert [line for line in err.splitlines() if "network_util" not in line] == []
    result = json.loads((tmp_path / "r.json").read_text())
    records = load_records(tmp_path / "runs" / "one")
    assert result["study"] == "one"
    assert result["trials"]["completed"] + result["trials"]["pruned"] == len(records) == 4
    assert set(result["best"]) >= {
        "number",
        "score",
        "accuracy_score",
        "speed_score",
        "params",
        "macs",
    }
    assert result["front"]
    assert records[0].status is Status.COMPLETED
    assert records[0].notes["thop"] == {"params": 426_608, "macs": records[0].cost.macs}
    assert "python -m nas.retrain --best --study one" in out
    folder = tmp_path / "runs" / "one"
    assert all(
        (folder / name).stat().st_size
        for name in ("front.csv", "front.png", "report.html", "trials.csv", "space.yaml")
    )

    client, runs = mlflow_runs(tmp_path)
    trials = [run for run in runs if run.data.tags["role"] == "trial"]
    assert sorted(run.data.tags["trial"] for run in trials) == ["0", "1", "2", "3"]
    (parent,) = [run for run in runs if run.data.tags["role"] == "study"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert parent.data.metrics["best_score"] == pytest.approx(result["best"]["score"])
    assert "front.png" in {a.path for a in client.list_artifacts(parent.info.run_id)}

    before = [r.to_dict() for r in records]
    code, _, err = command(*SEARCH, "--study", "one", "--resume", "--json", "again.json")
    assert code == 0, err
    assert json.loads((tmp_path / "again.json").read_text()) == result
    assert [r.to_dict() for r in load_records(folder)] == before

    code, _, err = command(*SEARCH, "--trials", "5", "--study", "one", "--resume")
    assert code == 0, err
    records = load_records(folder)
    assert [r.number for r in records] == list(range(6))
    assert all(r.status.ended for r in records)
    _, runs = mlflow_runs(tmp_path)
    trials = [run for run in runs if run.data.tags["role"] == "trial"]
    assert sorted(run.data.tags["trial"] for run in trials) == [*"012345"]
    (front,) = [run for run in runs if run.data.tags["role"] == "study front"]
    assert front.info.run_name == "one front"


@pytest.mark.slow
def test_ctrl_c_keeps_everything_and_prints_how_to_resume(command, start, tiny_space, tmp_path):
    process = start(*SEARCH, "--trials", "4", "--study", "one")
    while process.poll() is None and not (tmp_path / "runs/one/trials/0000/last.pt").exists():
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all of its processes
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "nothing is lost" in out
    words = shlex.split(re.search(r"Resume with:\s+(python .*)", out)[1])
    assert set(words) >= {"--study", "one", "--resume"}
    assert "Traceback" not in err
    code, _, err = command(*words[2:])
    assert code == 0, err
    assert len(load_records(tmp_path / "runs" / "one")) == 5


@pytest.mark.slow
def test_enqueued_designs_come_first_and_others_inherit_weights(command, tiny_space, tmp_path):
    (tmp_path / "first.yaml").write_text(
        "designs: [{preset: yunet_n}, {params: {backbone.width: 0.125, neck.width: 16}}]\n"
    )
    code, out, err = command(
        *SEARCH,
        "--trials",
        "4",
        "--study",
        "one",
        "--concurrency",
        "1",
        "--enqueue",
        "first.yaml",
        "--inherit",
    )
    assert code == 0, err
    assert "designs to try first: 2" in out
    records = load_records(tmp_path / "runs" / "one")
    assert [r.source for r in records[:4]] == ["baseline", "enqueued", "enqueued", "sampled"]
    assert records[1].detector.backbone.kind == "yunet"
    assert (records[2].params["backbone.width"], records[2].params["neck.width"]) == (0.125, 16)
    heirs = [r for r in records if r.parent is not None]
    assert heirs
    assert all(r.notes["start"] for r in heirs if r.epochs)

    code, out, err = command(*SEARCH, "--trials", "3", "--study", "two", "--from-study", "one:2")
    assert code == 0, err
    assert "designs to try first: 2" in out
    second = load_records(tmp_path / "runs" / "two")
    assert second[0].epochs == records[0].epochs  # copied, not trained again
    assert {r.notes["origin"].split()[1] for r in second[1:3]} == {"one"}


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_retried(start, tiny_space, tmp_path):
    process = start(*SEARCH, "--trials", "4", "--study", "one", "--concurrency", "1")
    log = tmp_path / "runs/one/trials/0000/log.txt"
    while process.poll() is None and not (log.exists() and "process" in log.read_text()):
        time.sleep(0.05)
    os.kill(int(re.search(r"process (\d+) on", log.read_text())[1]), signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    records = load_records(tmp_path / "runs" / "one")
    assert len(records) == 5
    assert sum(r.retries for r in records) == 1
    assert all(r.status in (Status.COMPLETED, Status.PRUNED) for r in records)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--trials", "0"), "--trials 0: must be at least 1"),
        (("--max-failures", "1.5"), "--max-failures 1.5: must be between 0 and 1"),
        (("--space", "other.yaml"), "other.yaml: no such file"),
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--study", "../x"), "use letters, digits"),
        (("--holdout", "2"), "holdout: 2.0 must be between 0 and 1"),
        (("--device", "cuda"), "--device cuda: no CUDA device"),
        (("--address", "ray://head:10001"), "runs on a machine of the cluster"),
        (("--address", "127.0.0.1:9"), "127.0.0.1:9: no Ray cluster"),
        (("--address", "127.0.0.1:99999"), "127.0.0.1:99999: no Ray cluster"),
        (("--gpus-per-trial", "2", "--device", "cpu"), "--gpus-per-trial 2: this machine has 0"),
        (("--json", "no/r.json"), "folder no does not exist"),
        (("--frobnicate",), "unrecognized arguments: --frobnicate"),
    ],
)
def test_bad_input_is_one_line(run_here, args, message):
    code, _, err = run_here(*SEARCH[1:], "--trials", "2", *args)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert message in err
    assert not list(run_here.folder.glob("runs/*"))


def test_too_little_disk_space_is_reported_before_a_study_is_created(run_here, monkeypatch):
    from nas.engine import disk_space

    monkeypatch.setattr(disk_space, "checkpoints_needed", lambda space, trials: 10**18)
    code, _, err = run_here(*SEARCH[1:], "--trials", "2")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "the checkpoints of 2 trials need about 1000000000.0 GB" in err
    assert not list(run_here.folder.glob("runs/*"))


def test_a_deleted_experiment_is_reported_before_a_study_is_created(run_here):
    from trials.tracking.mlflow_store import client, experiment_id

    uri = f"sqlite:///{run_here.folder}/mlflow.db"
    store = client(uri)
    store.delete_experiment(experiment_id(store, "tiny"))
    code, _, err = run_here(*SEARCH[1:], "--trials", "2", "--tracking-uri", uri)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "its experiment tiny was deleted; set MLFLOW_TRACKING_URI=" in err
    assert not list(run_here.folder.glob("runs/*"))


def test_a_disk_that_fills_up_ends_the_search_with_a_line(run_here, monkeypatch):
    """Whatever error it causes: here the one of sqlite if there is no space for a transaction."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import OperationalError

    def full(*args):
        try:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        except OperationalError as error:
            raise StorageInternalError("An exception is raised during the commit.") from error

    monkeypatch.setattr(
        "nas.engine.run_search.trial_setup",
        lambda *shared: TrialSetup(train=run_here.folder, holdout=run_here.folder),
    )
    monkeypatch.setattr(
        "trials.compute.trainable.run_on_ray", lambda source, shares, **how: source.next_segment()
    )
    monkeypatch.setattr("nas.study.storage.Study.add", full)
    code, _, err = run_here(*SEARCH[1:], "--study", "one", "--tracking-uri", "none")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "runs/one: the disk is full (" in err
    assert "resume with: python -m nas.search --space tiny.yaml --study one" in err
    assert "--trials 50 --resume" in err
    assert load_records(run_here.folder / "runs" / "one") == []


def test_too_many_failures_end_the_search_with_a_summary(run_here, monkeypatch):
    def all_but_the_baseline_fail(source, shares, **how):
        import contextlib

        assert not read_progress(run_here.folder / "runs" / "one").ended
        from trials.record import EpochResult
        from trials.run import Failure, SegmentReport

        with contextlib.suppress(StopIteration):
            while segment := source.next_segment():
                number = segment.number
                source.handle_report(
                    SegmentReport(
                        number=number,
                        ended=True,
                        **(
                            {"failure": Failure(reason="broken", traceback="…")}
                            if number
                            else {
                                "epoch": EpochResult(
                                    epoch=2,
                                    losses={},
                                    lr=0.1,
                                    seconds=1.0,
                                    ap=dict.fromkeys(("easy", "medium", "hard"), 0.5),
                                )
                            }
                        ),
                    )
                )

    monkeypatch.setattr(
        "nas.engine.run_search.trial_setup",
        lambda *shared: TrialSetup(train=run_here.folder, holdout=run_here.folder),
    )
    monkeypatch.setattr("trials.compute.trainable.run_on_ray", all_but_the_baseline_fail)
    search = (*SEARCH[1:], "--trials", "9", "--study", "one", "--tracking-uri", "none")
    code, out, err = run_here(*search, "--json", "r.json")
    assert code == 1
    assert err == (
        "error: study one stops: 4 of 5 trials failed, more than --max-failures 0.5 "
        "allows, the last one with: broken; fix the cause and start a new study, or "
        "use --resume with a larger share\n"
    )
    assert "1 completed, 4 failed; 1 epochs trained" in out
    assert json.loads((run_here.folder / "r.json").read_text())["trials"]["failed"] == 4
    assert read_progress(run_here.folder / "runs" / "one").ended
    code, _, err = run_here(*search, "--resume")
    assert (code, "4 of 5" in err) == (1, True)
    code, _, err = run_here(*search, "--resume", "--max-failures", "0.85")
    assert "6 of 7 trials failed, more than --max-failures 0.85" in err


def test_an_existing_study_needs_resume(run_here):
    from nas.study.storage import Study

    Study.create(run_here.folder / "runs", "one", helpers.manifest("one"))
    code, _, err = run_here(*SEARCH[1:], "--trials", "2", "--study", "one")
    assert code == 2
    assert "study one exists in runs; add --resume" in err


def test_dry_run_writes_nothing(run_here):
    code, out, _ = run_here(*SEARCH[1:], "--trials", "4", "--dry-run")
    assert code == 0
    assert "(baseline)" in out
    assert "estimated time for 4 trials" in out
    assert not (run_here.folder / "runs").exists()


def test_dry_run_starts_with_the_enqueued_designs(run_here):
    (run_here.folder / "first.yaml").write_text("designs: [{preset: yunet_n}]\n")
    code, out, err = run_here(*SEARCH[1:], "--trials", "2", "--dry-run", "--enqueue", "first.yaml")
    assert code == 0, err
    assert "designs to try first: 1" in out
    assert "yunet" in next(line for line in out.splitlines() if line.split()[:1] == ["1"])
    assert not (run_here.folder / "runs").exists()


def test_dry_run_shows_how_latency_will_be_measured(run_here, tiny_space):
    with open(tiny_space, "a") as file:
        file.write("objective: {metric: latency_ms}\n")
    code, out, err = run_here(*SEARCH[1:], "--trials", "2", "--dry-run", "--device", "cpu")
    assert code == 0, err
    assert "ms per image here (" in out
    assert "each design is timed when it is sampled" in out
    assert not (run_here.folder / "runs").exists()


@pytest.fixture
def run_here(tiny_space, tmp_path, monkeypatch, capsys):
    """Function: flags → (exit code, stdout, stderr), in this process; for runs without training."""
    from nas import search
    from nas.terminal import cli

    class Run:
        folder = tmp_path

        def __call__(self, *args):
            capsys.readouterr()
            code = cli.main(search.make_parser(), search.run, [str(a) for a in args])
            return code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return Run()


@pytest.mark.slow
def test_a_search_without_its_gcs_server_ends_with_the_resume_command(start, tiny_space, tmp_path):
    """Ray's calls hang without it, until Ray ends the process with exit code 1."""
    import psutil

    process = start(*SEARCH, "--trials", "4", "--study", "one")
    while process.poll() is None and not (tmp_path / "runs/one/trials/0000/last.pt").exists():
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    next(p for p in started if p.name() == "gcs_server").kill()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2, err
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "gcs_server has died" in error and "--study one" in error and "--resume" in error
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--seed", "9"), "with --seed 0;"),
        (("--fraction", "0.5"), "with --fraction 0.3;"),
        (("--holdout", "0.4"), "with --holdout 0.2;"),
        (("--select-on", "val"), "with --select-on holdout;"),
        (("--sampler", "tpe"), "with --sampler random;"),
        (("--proxies", "long"), "with --proxies short;"),
        (("--no-prior",), "without --no-prior and has learnt"),
    ],
)
def test_what_a_study_was_started_with_stays(run_here, flags, told):
    from nas.engine.open_study import space_hash
    from nas.study.storage import Study

    facts = {"space_hash": space_hash(Path("tiny.yaml")), "space_text": "", "sampler": "random"}
    facts["data"] = DataChoice(path="synthetic", fraction=0.3)
    manifest = helpers.manifest("one", learnt_from=("study old",), **facts)
    study = Study.create(run_here.folder / "runs", "one", manifest)
    before = (study.folder / "study.db").read_bytes()
    code, _, err = run_here(*SEARCH[1:], "--trials", "2", "--study", "one", "--resume", *flags)
    assert (code, told in err, err.count("\n")) == (2, True, 1), err
    assert (study.folder / "study.db").read_bytes() == before


def test_a_space_is_the_same_with_other_trainings_that_it_does_not_use(tmp_path, tiny_space_text):
    from nas.engine.open_study import space_hash

    (path := tmp_path / "tiny.yaml").write_text(tiny_space_text)
    before = space_hash(path)
    long = "proxy_long: {size: 128}\nrungs_long: [8]\n"
    path.write_text(f"# a comment\n{tiny_space_text}{long}full: {{epochs: 40}}\n")
    assert space_hash(path) == before != space_hash(path, "long")
    path.write_text(tiny_space_text.replace("eta: 2", "eta: 3"))
    assert space_hash(path) != before
