"""MLflow's pages of a store: what is started, what is printed, what is refused."""

import socket

import pytest

from detector.base.errors import UserError
from nas import ui


def run(*words: str) -> dict:
    return ui.run(ui.make_parser().parse_args(words))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--tracking-uri", "none"], "there is nothing to show"),
        (["--tracking-uri", "sqlite:///gone.db"], "gone.db does not exist; run this where"),
        (["--port", "0"], "must be a port"),
        (["--port", "65536"], "must be a port"),
        (["--port", "x"], "must be a port"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(*words)
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_a_search_is_refused(tmp_path):
    from trials.tracking.mlflow_store import client

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client(uri)
    with pytest.raises(UserError, match="no search is in it yet"):
        run("--tracking-uri", uri)


def test_a_port_in_use_is_passed_over_or_refused(monkeypatch):
    with socket.socket() as taken:
        taken.bind((ui.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: is in use"):
            ui._free_port(port)
        monkeypatch.setattr(ui, "DEFAULT_PORT", port)
        assert ui._free_port(None) > port
        monkeypatch.setattr(ui, "PORTS_TRIED", 1)
        with pytest.raises(UserError, match="are all in use"):
            ui._free_port(None)


def test_a_server_that_does_not_start_is_one_line():
    with (
        pytest.raises(UserError, match=r"does not start on port \d+ \(\S.*\)$"),
        ui._serve("nothing://x", ui._free_port(None)),
    ):
        pass


def test_of_a_server_only_the_addresses_are_printed(monkeypatch, capsys):
    monkeypatch.setattr("trials.tracking.mlflow_store.client", lambda uri: None)
    monkeypatch.setattr(
        "trials.tracking.mlflow_store.search_pages",
        lambda store, server: {"retina": {"fronts": f"{server}/#/experiments/1"}},
    )
    assert run("--tracking-uri", "http://server:5000") == {
        "pages": {"retina": {"fronts": "http://server:5000/#/experiments/1"}}
    }
    assert "retina\n  fronts  http://server:5000/#/experiments/1\n" in capsys.readouterr().out
