"""The Ray that a command starts on this machine: on loopback alone, in a private folder, behind a
token of its own, and ended with the command."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import trials.compute.settings  # noqa: F401  isort: skip  (before Ray itself)

import psutil
import ray
from ray._private import ray_constants

from detector.base.errors import UserError, first_line

LOOPBACK = "127.0.0.1"
MAX_SOCKET_PATH = 107
"""Bytes that a path of a Unix socket may have on Linux."""
SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Ray's longest path of a socket, in its folder; the last number is the largest process id."""
OBJECT_STORE = 100_000_000
"""Bytes of Ray's shared memory; images and checkpoints are files, so little goes through it."""
SHARED_MEMORY = Path("/dev/shm")
ATTEMPTS = 2
"""To start Ray if it times out: a second one finds its programs in the page cache."""
GCS_TIMEOUT = 15
"""Seconds until Ray ends this process because its gcs_server has died; by default 60."""
LEAVE_TIMEOUT = 1
"""Seconds that Ray's processes have to end by themselves once it has shut down."""
WATCH_SECONDS = 0.5
"""Between two looks at the gcs_server."""
ESSENTIAL = ("raylet", "gcs_server")
"""Ray's processes that nothing replaces: without one of them Ray waits, for ever or until it ends
the whole command."""


_ended = threading.Event()
"""Set once `local_ray` ends its processes."""


class RayDied(Exception):
    """The local Ray cannot train any more; the message says which of its processes has died."""


@contextlib.contextmanager
def local_ray(cores: int, log_level: int = logging.ERROR) -> Iterator[None]:
    """Ray on this machine for the duration of the block, for this process alone.

    Ray's processes end with the thread that starts them, and at the latest with the block.

    Args:
        cores: that Ray may use.
        log_level: of Ray's own messages.

    Raises:
        UserError: it does not start; why, and how to fix it.
    """
    _check_loopback()
    folder = temporary_folder()
    _ended.clear()
    try:
        with _environment(token_settings(os.environ)), _on_loopback():
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    ray.init(
                        address="local",
                        num_cpus=cores,
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=log_level,
                        object_store_memory=OBJECT_STORE,
                        _node_ip_address=LOOPBACK,
                        _temp_dir=str(folder / "ray"),
                        _plasma_directory=_plasma_directory(folder),
                        _system_config={"gcs_rpc_server_reconnect_timeout_s": GCS_TIMEOUT},
                    )
                    break
                except Exception as error:  # whatever Ray, gRPC or the system raise
                    ray.shutdown()
                    if attempt == ATTEMPTS or not _timed_out(error):
                        raise UserError(start_failure(error)) from error
            yield
    finally:
        processes = _processes(folder)
        _ended.set()
        ray.shutdown()
        _end(processes)
        shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: Path) -> list[psutil.Process]:
    """Those that were started for Ray in `folder`, found by their command lines even where their
    parents have died, and all that these have started."""
    started = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or ()) and process.pid != os.getpid()
    ]
    with_children = set(started)
    for process in started:
        with contextlib.suppress(psutil.Error):
            with_children.update(process.children(recursive=True))
    return list(with_children)


def _end(processes: Sequence[psutil.Process]) -> None:
    """Kills those that do not end by themselves: Ray gives its raylet one second before it kills
    it, and what the raylet has started then stays for up to two minutes."""
    _, alive = psutil.wait_procs(processes, timeout=LEAVE_TIMEOUT)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()


def check_alive(kinds: Collection[str] = ESSENTIAL) -> None:
    """Check the processes of the local Ray; on a cluster there are none to check.

    Args:
        kinds: of processes, by Ray's names.

    Raises:
        RayDied: one that Ray needs has died.
    """
    node: Any = ray._private.worker._global_node
    for kind, process in [] if node is None else node.dead_processes():
        if kind in kinds:
            raise RayDied(
                f"Ray's process {kind} has died (exit code {process.returncode}: killed, or out of "
                "memory)"
            )


@contextlib.contextmanager
def ended_without_gcs(message: str) -> Iterator[None]:
    """Ends this process, with `message` in its error and exit code 2, if the gcs_server of the
    local Ray dies in the block: Ray's calls then hang until Ray itself ends the process."""
    left = threading.Event()

    def watch() -> None:
        while not left.wait(WATCH_SECONDS):
            try:
                check_alive(("gcs_server",))
            except RayDied as error:
                if _ended.is_set():  # by `local_ray` itself
                    return
                sys.stderr.write(f"error: {error}; {message}\n")
                sys.stderr.flush()
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                os._exit(2)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def temporary_folder() -> Path:
    """A new folder for Ray's sockets and logs that only this user can enter: in RAY_TMPDIR, or in
    the first system folder where paths of sockets are short enough.

    Raises:
        UserError: there is none that can be written.
    """
    asked = os.environ.get("RAY_TMPDIR")
    places = [asked] if asked else [os.environ.get("TMPDIR"), "/tmp", "/var/tmp"]
    if not asked:
        places += [os.environ.get("XDG_RUNTIME_DIR"), str(SHARED_MEMORY)]
    reasons = []
    for place in dict.fromkeys(filter(None, places)):
        sample = Path(place).absolute() / "ray-12345678" / SOCKET
        if len(os.fsencode(sample)) > MAX_SOCKET_PATH:
            reasons.append(f"{place}: too long a path for sockets")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="ray-", dir=Path(place).absolute()))
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
    raise UserError(
        f"Ray has no place for its sockets and logs ({'; '.join(reasons)}); name a folder that can "
        "be written and has a short path: RAY_TMPDIR=FOLDER"
    )


def token_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that make Ray accept this process alone: a new token, unless the user has one. By
    default Ray writes its token into the home folder, where everybody can read it, and which may be
    missing. RAY_AUTH_MODE=disabled still switches the check off."""
    if "RAY_AUTH_TOKEN" in environment or "RAY_AUTH_TOKEN_PATH" in environment:
        return {}
    return {"RAY_AUTH_TOKEN": _TOKEN}


_TOKEN = secrets.token_hex(32)
"""One for the whole process: Ray remembers the first."""


def start_failure(error: Exception) -> str:
    """One line for a failure of Ray to start."""
    if _timed_out(error):
        return (
            f"Ray did not start in time ({first_line(error)}); the machine may be too busy or "
            "short of memory: try again when it is less so"
        )
    return (
        f"Ray cannot start on this machine ({type(error).__name__}: {first_line(error)}); check "
        "that there are free memory, processes (ulimit -u) and space in the temporary folder, or "
        "name a Ray cluster: --address, RAY_ADDRESS"
    )


def _timed_out(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, TimeoutError) or "timed out" in text or "time out" in text


def _check_loopback() -> None:
    """Raises UserError if this machine cannot reach itself; Ray would wait for minutes."""
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"this machine does not reach itself at {LOOPBACK} ({error.strerror or error}), which "
            "Ray needs; switch the loopback interface on (ip link set lo up), or allow it in the "
            "firewall"
        ) from error


def _plasma_directory(folder: Path) -> str | None:
    """`folder` for Ray's shared memory if SHARED_MEMORY is small or absent, as in containers."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        free = 0
    if free > 1.2 * OBJECT_STORE and os.access(SHARED_MEMORY, os.W_OK):
        return None
    return str(folder)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Makes Ray's processes listen on LOOPBACK alone. By default Ray replaces that address by one
    that other machines reach, and listens on all."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the duration of the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
