"""The Ray that a search runs on: one of its own on this machine, or an existing cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import trials.compute.settings  # isort: skip  (before Ray itself)

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import detector
import trials
from detector.base.errors import TrainingError, UserError
from detector.config.detector import Detector
from trials.compute.bench import Bench
from trials.compute.resources import Node, Shares
from trials.record import Cost

LIBRARIES = ("torch", "torchvision", "cv2", "numpy", "thop", "scipy")
"""What a node needs to train; the project's own packages are sent there."""
ANSWER_S = 120.0
"""Time a node has to answer."""
KNOCK_S = 10.0
"""Time in which the head of a cluster must take a connection."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[list[Node]]:
    """Be a part of an existing cluster meanwhile; what its machines have.

    The packages `detector` and `trials` travel to the workers as they are here.

    Args:
        address: as `ray.init` takes it: auto, or HOST:PORT of the head node.

    Raises:
        UserError: it does not answer, or cannot be driven from here.
    """
    if "://" in address:
        raise UserError(
            f"--address {address}: a search decides where its storage is, so it runs "
            "on a machine of the cluster: ray start --address=HOST:6379 here, then "
            "--address auto"
        )
    join(
        address,
        "--address",
        "leave the flag out (and RAY_ADDRESS unset)",
        runtime_env={
            "py_modules": [str(Path(package.__file__).parent) for package in (detector, trials)]
        },
    )
    try:
        yield [
            Node(cpus=node["Resources"].get("CPU", 0.0), gpus=node["Resources"].get("GPU", 0.0))
            for node in _alive()
        ]
    finally:
        ray.shutdown()


def join(address: str, named: str, otherwise: str, **settings) -> None:
    """`ray.init` with an existing cluster.

    Args:
        address: as `ray.init` takes it.
        named: what the user gave it by.
        otherwise: how to do without a cluster, for the user.
        settings: more of `ray.init`.

    Raises:
        UserError: it does not answer.
    """
    try:
        _knock(address)
        ray.init(
            **{"address": address, "log_to_driver": False, "logging_level": "ERROR"} | settings
        )
    except Exception as error:  # whatever Ray has to say, the address did not do
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{named} {address}: no Ray cluster that this machine is part of ({line}); "
            "start one with ray start --head, join it here with ray start "
            f"--address=HOST:6379, or {otherwise}"
        ) from error


def _knock(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT; Ray itself tries for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


@contextlib.contextmanager
def running(shares: Shares) -> Iterator[None]:
    """A Ray on this machine meanwhile; where one is connected to, that one."""
    with soon_running(shares) as ready:
        ready()
        yield


@contextlib.contextmanager
def soon_running(shares: Shares) -> Iterator[Callable[[], None]]:
    """As `running`, but the Ray starts while the block goes on, until that calls what it is given.

    Ray's processes end with the thread that started them, so that lives as long as they do.
    """
    if ray.is_initialized():
        yield lambda: None
        return
    with _orderly_sigterm(), ThreadPoolExecutor(1, thread_name_prefix="ray") as thread:
        started = thread.submit(
            ray.init,
            address="local",
            num_cpus=shares.cores,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )

        def ready() -> None:
            started.result()

        try:
            yield ready
        finally:
            wait([started])
            ray.shutdown()


@contextlib.contextmanager
def _orderly_sigterm() -> Iterator[None]:
    """End as a program that exits; Ray sees to that only where it starts in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_nodes(folders: Sequence[Path]) -> None:
    """That every machine of the cluster can train: it has the libraries, and sees the folders
    under the same path as this one.

    Raises:
        UserError: names the first that does not, and why.
    """
    stamp, text = f".seen-{uuid.uuid4().hex}", uuid.uuid4().hex
    try:
        for folder in folders:
            (folder / stamp).write_text(text)
        look = ray.remote(missing)
        asked = {
            look.options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            ).remote(
                [str(f.resolve() / stamp) for f in folders], text
            ): f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, "
            f"{node['NodeID'][:8]})"
            for node in _alive()
        }
        for reply, name in asked.items():
            try:
                fault = ray.get(reply, timeout=ANSWER_S)
            except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError) as error:
                line = (str(error).splitlines() or [type(error).__name__])[0][:200]
                raise UserError(
                    f"{name} does not answer ({line}); mend it or take it out of the cluster"
                ) from error
            if fault:
                raise UserError(f"{name} {fault}")
    finally:
        for folder in folders:
            (folder / stamp).unlink(missing_ok=True)


def missing(stamps: Sequence[str], text: str) -> str | None:
    """What the machine that this runs on lacks to train; none: nothing.

    Args:
        stamps: files of the shared folders, which say `text`.
    """
    lacking = [name for name in LIBRARIES if find_spec(name) is None]
    if lacking:
        return f"lacks {', '.join(lacking)}; install the same environment there"
    for stamp in map(Path, stamps):
        try:
            seen = stamp.read_text() == text and os.access(stamp.parent, os.W_OK)
        except OSError:
            seen = False
        if not seen:
            return (
                f"does not see {stamp.parent} as this machine does, or may not write there; "
                "choose a --runs-dir that all machines share under one path"
            )
    return None


def dead_nodes() -> set[str]:
    """Ids of machines that were part of the cluster and are no more."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def _alive() -> list[dict]:
    return [node for node in ray.nodes() if node["Alive"]]


class Stopwatch:
    """Latency of designs, from a `Bench` on a worker that does nothing else; it is on this machine
    where that is a part of the cluster with room for it.

    Args:
        baseline: the design that others are timed with.
        known: its cost, where the study has measured it already.
    """

    def __init__(self, baseline: Detector, known: Cost | None = None):
        self._baseline, self._known = baseline, known
        self._bench = None

    def start(self, shares: Shares) -> None:
        """Set the worker apart; to be called once Ray runs, before anything trains on it.

        Raises:
            UserError: the cluster has no room for it, or it is not the machine that it was.
        """
        here = ray.get_runtime_context().get_node_id()
        self._bench = (
            ray.remote(Bench)
            .options(
                num_cpus=1,
                num_gpus=shares.gpus,
                max_restarts=-1,
                max_task_retries=1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .remote(self._baseline.to_dict(), shares.device)
        )
        try:
            machine = ray.get(self._bench.machine.remote(), timeout=ANSWER_S)
        except ray.exceptions.GetTimeoutError as error:
            raise UserError(
                "no node has a core (and GPU share) free to measure latency on; add "
                "one, or end what else runs on the cluster"
            ) from error
        if self._known is None:
            self._known = replace(
                Cost.of(self._baseline),
                machine=machine,
                latency_ms=ray.get(self._bench.baseline_ms.remote()),
            )
        self._check(machine)

    def __call__(self, detector: Detector) -> Cost:
        """What a design costs, latency included. Takes some seconds.

        Raises:
            TrainingError: it cannot be run there.
            UserError: the worker had to be started again, and is on another machine now.
        """
        if detector == self._baseline:
            return self._known
        try:
            ratio, machine = ray.get(
                [self._bench.ratio.remote(detector.to_dict()), self._bench.machine.remote()]
            )
        except ray.exceptions.RayError as error:
            raise TrainingError(
                f"latency could not be measured: {str(error).strip().splitlines()[-1][:200]}"
            ) from error
        self._check(machine)
        return replace(
            Cost.of(detector), machine=machine, latency_ms=ratio * self._known.latency_ms
        )

    def _check(self, machine: str) -> None:
        if machine != self._known.machine:
            raise UserError(
                f"the latencies of this study were measured on {self._known.machine}, "
                f"now it would be {machine}: they cannot be compared; go on there, "
                "or start a new study"
            )
