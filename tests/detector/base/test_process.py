"""Signals stop a command in order; libraries do not report their use."""

import os
import signal
import subprocess
import sys

import pytest

from detector.base import cli
from detector.base.process import PRIVACY_SETTINGS, disable_telemetry, stopped_by_signals


@pytest.fixture(autouse=True)
def heeded_signals():
    """Signals that are not ignored, as they are where the tests run in the background."""
    before = {
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGTERM, 143, "stopped by SIGTERM\n"),
        (signal.SIGHUP, 129, "stopped by SIGHUP\n"),
        (signal.SIGINT, 130, "interrupted\n"),
    ],
)
def test_a_signal_stops_a_command_in_order(capsys, number, code, message):
    cleaned = []

    def run(args):
        try:
            os.kill(os.getpid(), number)
        finally:
            cleaned.append(True)

    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    assert cli.main(cli.parser("x", "y"), run, []) == code
    assert capsys.readouterr().err == message
    assert cleaned
    assert handlers == [
        signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    ]


def test_a_second_signal_ends_at_once():
    """Whatever still goes on in the first one's wake."""
    script = """
import os, signal
from detector.base.process import stopped_by_signals
with stopped_by_signals():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGHUP)
        print("not reached")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (-signal.SIGHUP, "")


def test_ignored_signals_stay_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals() as request:
            os.kill(os.getpid(), signal.SIGHUP)
        assert request.number is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_child_dies_of_the_signal_alone():
    with stopped_by_signals() as request:
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os._exit(7)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert request.number is None


def test_telemetry_is_off_unless_the_user_wants_it(monkeypatch):
    for name in PRIVACY_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    disable_telemetry()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


def test_openvino_makes_no_identity_to_report_by(tmp_path):
    """Its import alone writes a client's ID into the home folder, and sends that it was used."""
    script = """
from detector.base.process import disable_telemetry
disable_telemetry()
import openvino
"""
    subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "HOME": str(tmp_path)}, check=True
    )
    assert list(tmp_path.iterdir()) == []
