"""python -m nas.ui: MLflow's pages, opened where searches are compared."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from typing import IO

from detector.base.cli import parser as base_parser
from detector.base.errors import UserError
from nas.terminal import cli
from trials.hints import DEFAULT_TRACKING_URI, is_server

DESCRIPTION = """\
Start MLflow's pages for a store and print, for each search space, the address at which its searches
are compared (their Pareto fronts in one chart, hypervolume against trials and epochs), and that of
all their trials. Ctrl-C stops the pages.

  python -m nas.ui
  python -m nas.ui --tracking-uri sqlite:////data/mlflow.db --port 5001 --open

If the store is a server (http://…), its own addresses are printed and nothing is started."""

HOST = "127.0.0.1"
"""The pages have no login, so that only this machine can reach them."""
DEFAULT_PORT, PORTS_TRIED = 5000, 20
START_SECONDS, STOP_SECONDS = 120, 10


def make_parser() -> ArgumentParser:
    parser = base_parser("nas.ui", DESCRIPTION)
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        default=DEFAULT_TRACKING_URI,
        help="MLflow store or server (default: MLFLOW_TRACKING_URI if it is set, else "
        "sqlite:///mlflow.db)",
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=_port,
        help=f"of {HOST} (default: {DEFAULT_PORT}, or the next one that is free)",
    )
    parser.add_argument("--open", action="store_true", help="also open the first page in a browser")
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    from trials.tracking.mlflow_store import client, search_pages

    if args.tracking_uri == "none":
        raise UserError("--tracking-uri none: there is nothing to show; name a store or server")
    _check_exists(args.tracking_uri)
    store = client(args.tracking_uri)
    if is_server(args.tracking_uri):
        pages = search_pages(store, args.tracking_uri)
        _print_pages(pages, args)
        return {"pages": pages}
    port = _free_port(args.port)
    server = f"http://{HOST}:{port}"
    pages = search_pages(store, server)
    if not pages:
        raise UserError(
            f"--tracking-uri {args.tracking_uri}: no search is in it yet; start one by "
            "python -m nas.search, or name another store"
        )
    with _serve(args.tracking_uri, port) as process:
        _print_pages(pages, args)
        print("Ctrl-C stops these pages", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
            raise UserError(f"MLflow's server ended with exit code {process.returncode}")
    return {"pages": pages}


def _print_pages(pages: dict[str, dict[str, str]], args: Namespace) -> None:
    print(f"searches of {args.tracking_uri}, by search space")
    for space, addresses in pages.items():
        print(space)
        for what, page in addresses.items():
            print(f"  {what}  {page}", flush=True)
    if args.open and pages:
        webbrowser.open(next(iter(pages.values()))["fronts"])


def _check_exists(uri: str) -> None:
    """Raise a UserError for an SQLite file that does not exist: opening it would create it."""
    from trials.tracking.mlflow_store import sqlite_file

    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise UserError(
            f"--tracking-uri {uri}: {file} does not exist; run this where the search ran, or name "
            "its store"
        )


@contextlib.contextmanager
def _serve(uri: str, port: int) -> Iterator[subprocess.Popen]:
    """MLflow's server, which answers when the block begins and is stopped at its end."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    jobs_off = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"
    }  # eight processes for language models
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            env=jobs_off | os.environ,
        )
        try:
            _wait_until_up(process, port, log)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_up(process: subprocess.Popen, port: int, log: IO[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2).close()
            return
        time.sleep(0.2)
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    raise UserError(
        f"MLflow's server does not start on port {port}" + (f" ({lines[-1]})" if lines else "")
    )


def _free_port(given: int | None) -> int:
    """The port that is asked for, or the first free one.

    Raises:
        UserError: it is in use, or all are.
    """
    ports = range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED) if given is None else [given]
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    if given is not None:
        raise UserError(f"--port {given}: is in use or not allowed; choose another one")
    raise UserError(f"ports {ports[0]} to {ports[-1]} are all in use; choose another one by --port")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text[:6]) <= 65_535:
        raise ArgumentTypeError(f"{text!r} must be a port, 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
