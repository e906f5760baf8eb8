"""Searches that are killed, or whose disk fills up, continue with --resume as if uninterrupted."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import helpers
import pytest

from analysis.records.load import load_records
from trials.record import Status

PROJECT = Path(__file__).resolve().parents[2]
SEARCH = (
    "nas.search",
    "--space",
    "tiny.yaml",
    "--data",
    "synthetic",
    "--fraction",
    "0.3",
    "--trials",
    "6",
)
KILLS = 10


def mlflow_trials(folder):
    """Ids of MLflow's parent runs, and (trial number, parent) of its trial runs."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    parents = [run.info.run_id for run in runs if run.data.tags["role"] == "study"]
    return parents, [
        (int(run.data.tags["trial"]), run.data.tags["mlflow.parentRunId"])
        for run in runs
        if run.data.tags["role"] == "trial"
    ]


def stored(folder):
    return load_records(folder) if (folder / "study.json").exists() else []


@pytest.mark.slow
def test_ten_kills_lose_and_repeat_nothing(command, start, tiny_space, tmp_path):
    """Killed at random moments, alone or with all its processes."""
    tiny_space.write_text(tiny_space.read_text().replace("[1, 2]", "[3, 6, 12]"))
    folder, rng = tmp_path / "runs" / "one", random.Random(0)
    ended = {}
    for _ in range(KILLS):
        process = start(*SEARCH, "--study", "one", "--resume")
        epochs = sum(len(r.epochs) for r in stored(folder))
        target = epochs + rng.randrange(4)  # a moment defined by progress, not by the clock
        while process.poll() is None and sum(len(r.epochs) for r in stored(folder)) < target:
            time.sleep(0.2)
        time.sleep(rng.random())
        assert process.poll() is None, process.communicate()
        if rng.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()  # for the driver only: its workers may outlive it for a moment
        records = {r.number: r for r in stored(folder)}
        for number, record in ended.items():
            assert records[number] == record
        ended |= {n: r for n, r in records.items() if r.status is Status.COMPLETED}
    code, _, err = command(*SEARCH, "--study", "one", "--resume")
    assert code == 0, err
    records = load_records(folder)
    assert all(records[number] == record for number, record in ended.items())
    assert [r.number for r in records] == list(range(7))
    assert len({r.identity for r in records}) == 7
    assert {r.status for r in records} <= {Status.COMPLETED, Status.PRUNED}
    for record in records:
        assert [e.epoch for e in record.epochs] == list(range(1, len(record.epochs) + 1))
        assert record.retries == 0
    (parent,), trials = mlflow_trials(tmp_path)
    assert sorted(trials) == [(number, parent) for number in range(7)]


@pytest.mark.slow
@pytest.mark.parametrize("everything", [False, True], ids=["command", "group"])
def test_sigterm_ends_a_search_in_order(command, start, tiny_space, tmp_path, everything):
    """Sent to the command, as Kubernetes does, or to all of its processes, as SLURM and systemd."""
    process = start(*SEARCH, "--study", "one", "--tracking-uri", "none")
    checkpoint = tmp_path / "runs" / "one" / "trials" / "0000" / "last.pt"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.2)
    (os.killpg if everything else os.kill)(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err == "stopped by SIGTERM\n"
    assert "nothing is lost. Resume with:\n  python -m nas.search --space tiny.yaml" in out
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert all(r.status is not Status.FAILED for r in stored(tmp_path / "runs" / "one"))


@pytest.mark.slow
def test_a_full_disk_ends_a_search_that_continues_when_there_is_space(tiny_space, tmp_path):
    """A real one: a small file system in memory, filled after the first checkpoint."""
    isolated = ["unshare", "-rmn", "sh", "-c", "mount -t tmpfs -o size=200m tmpfs runs"]
    (tmp_path / "runs").mkdir()
    if (
        not shutil.which("unshare")
        or subprocess.run(isolated, cwd=tmp_path, capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    script = """
        ip link set lo up
        mount -t tmpfs -o size=200m tmpfs runs
        ( until test -e runs/one/trials/0000/last.pt; do sleep 0.1; done
          dd if=/dev/zero of=runs/filler bs=4k 2> /dev/null ) &
        "$@" > out 2> err; echo $? > code
        rm runs/filler
        cp -r runs/one before
        "$@" --resume > out2 2> err2; echo $? > code2
        cp -r runs/one after"""
    search = [*helpers.toy_search(), *SEARCH[1:], "--study", "one"]
    subprocess.run(
        ["unshare", "-rmn", "sh", "-c", script, "sh", *search],
        cwd=tmp_path,
        timeout=500,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )
    lines = [
        line for line in (tmp_path / "err").read_text().splitlines() if "network_util" not in line
    ]  # Ray's warning about having only loopback
    assert (tmp_path / "code").read_text() == "2\n", lines
    assert len(lines) == 1
    assert "runs/one: the disk is full (" in lines[0]
    assert "--study one " in lines[0] and lines[0].endswith(" --resume")
    before, after = load_records(tmp_path / "before"), load_records(tmp_path / "after")
    assert all(r.status is not Status.FAILED and r.retries == 0 for r in before)
    assert (tmp_path / "code2").read_text() == "0\n", (tmp_path / "err2").read_text()
    assert len(after) == 7
    assert {r.status for r in after} <= {Status.COMPLETED, Status.PRUNED}
    for record in before:
        assert after[record.number].epochs[: len(record.epochs)] == record.epochs
