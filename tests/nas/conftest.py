"""Fixtures that run commands as a user does, each in its own process."""

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import helpers
import pytest

PROJECT = Path(__file__).resolve().parents[2]
LOOPBACK = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.fixture(scope="session", autouse=True)
def _quick_databases(quick_databases):
    pass


@pytest.fixture
def without_times():
    """Function: records → the records without times of day, for comparing two searches."""

    def stripped(records):
        return [
            record.evolve(
                started=None,
                ended=None,
                epochs=tuple(replace(epoch, ended=None) for epoch in record.epochs),
            )
            for record in records
        ]

    return stripped


SPACE = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  backbone.width: {choice: [0.125, 0.1875]}
  neck.width: {choice: [16, 32, 48]}
  context.kind: {choice: [ssh, none]}
proxy: {size: 64, batch_size: 16, evaluation: {every: 0}}
rungs: [1, 2]
eta: 2
"""


@functools.cache
def _loopback_only() -> list[str]:
    """A prefix that gives a command no network except loopback, if the system allows it.

    Ray's ports listen on all addresses of the machine."""
    if shutil.which("unshare") and shutil.which("ip"):
        process = subprocess.run([*LOOPBACK, "true"], capture_output=True)
        if process.returncode == 0:
            return LOOPBACK
    return []


def _enable_ctrl_c() -> None:
    """Background processes of a shell inherit that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path):
    """`start("nas.search", "--trials", "2")` → Popen in an empty folder, killed after the test."""
    running = []

    def run(module: str, *args: str) -> subprocess.Popen:
        python = [sys.executable, "-m", module]
        process = subprocess.Popen(
            [
                *_loopback_only(),
                *(helpers.toy_search() if module == "nas.search" else python),
                *map(str, args),
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_enable_ctrl_c,
            env=os.environ
            | {
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(
                    filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))
                ),
            },
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def command(start):
    """`command("nas.search", …)` → (exit code, stdout, stderr) of the finished command."""

    def run(module: str, *args: str) -> tuple[int, str, str]:
        process = start(module, *args)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def tiny_space_text() -> str:
    return SPACE


@pytest.fixture
def tiny_space(tmp_path, tiny_space_text) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_space_text)
    return path


@pytest.fixture(scope="module")
def serve():
    """`serve(folder)` → (process, address) of a running MLflow server on folder/mlflow.db, killed
    after the module. `port` takes the port of a former server."""
    running = []

    def start(folder: Path, port: int | None = None) -> tuple[subprocess.Popen, str]:
        if port is None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--backend-store-uri",
                f"sqlite:///{folder}/mlflow.db",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--workers",
                "1",
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # starts faster
            start_new_session=True,
        )
        running.append(process)
        address, until = f"http://127.0.0.1:{port}", time.time() + 400
        while True:
            assert process.poll() is None and time.time() < until
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    return process, address
            except OSError:
                time.sleep(0.3)

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def retrained(tiny_study, capsys):
    """Function: flags → (exit code, stdout, stderr) of nas.retrain in the tiny study's folder."""
    from nas import retrain
    from nas.terminal import cli

    def call(*flags: str) -> tuple[int, str, str]:
        code = cli.main(
            retrain.make_parser(),
            retrain.run,
            ["--runs-dir", str(tiny_study.folder.parent), "--tracking-uri", "none", *flags],
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def untrained_model():
    """Function: folder, design, changes of its metrics → the folder, with a model as if retrained;
    its weights are random."""
    from detector.network.model import build_detector
    from nas.models.model_folder import save_model

    def save(folder: Path, design, **changes) -> Path:
        save_model(folder, build_detector(design), design, helpers.metrics(design, **changes))
        return folder

    return save
