"""The Ray that a search runs on: a local one on this machine, or an existing cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trials.compute.settings  # noqa: F401  isort: skip  (before Ray itself)

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import detector
from detector.base.errors import TrainingError, UserError, first_line
from detector.base.plugins import loaded_plugins
from detector.config.detector import Detector
from trials.compute.bench import Bench
from trials.compute.local_ray import local_ray
from trials.compute.resources import Node, Shares
from trials.record import Cost

LIBRARIES = ("torch", "torchvision", "cv2", "numpy", "thop", "scipy")
"""Libraries that a node needs for training; the project's own packages are sent to it."""
ANSWER_TIMEOUT_S = 120.0
"""Seconds for a node to answer."""
CONNECT_TIMEOUT_S = 10.0
"""Seconds for the head of a cluster to accept a connection."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[list[Node]]:
    """Connects to an existing cluster for the duration of the block; yields its machines.

    The packages `detector` and `trials` are sent to the workers, and all that plugins may import.

    Args:
        address: as `ray.init` takes it: auto, or HOST:PORT of the head node.

    Raises:
        UserError: it does not answer, or cannot run a search from here.
    """
    if "://" in address:
        raise UserError(
            f"--address {address}: a search decides where its storage is, so it runs "
            "on a machine of the cluster: ray start --address=HOST:6379 here, then "
            "--address auto"
        )
    root = Path(detector.__path__[0]).parent
    join(
        address,
        "--address",
        "leave the flag out (and RAY_ADDRESS unset)",
        runtime_env={"py_modules": [str(root / package) for package in _packages()]},
    )
    try:
        yield [
            Node(cpus=node["Resources"].get("CPU", 0.0), gpus=node["Resources"].get("GPU", 0.0))
            for node in _alive()
        ]
    finally:
        ray.shutdown()


def _packages() -> tuple[str, ...]:
    return ("detector", "trials", "nas", "analysis") if loaded_plugins() else ("detector", "trials")


def join(address: str, source: str, alternative: str, **settings) -> None:
    """Connects to an existing cluster by `ray.init`.

    Args:
        address: as `ray.init` takes it.
        source: the flag or variable that the user gave it by, for the message.
        alternative: how to do without a cluster, for the message.
        settings: more arguments of `ray.init`.

    Raises:
        UserError: it does not answer.
    """
    try:
        _check_reachable(address)
        ray.init(
            address=address, log_to_driver=False, **{"logging_level": logging.ERROR} | settings
        )
    except Exception as error:  # whatever Ray raises, this address is unusable
        raise UserError(
            f"{source} {address}: no Ray cluster that this machine is part of "
            f"({first_line(error)}); "
            "start one with ray start --head, join it here with ray start "
            f"--address=HOST:6379, or {alternative}"
        ) from error


def _check_reachable(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT; Ray itself retries for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


@contextlib.contextmanager
def running(shares: Shares) -> Iterator[None]:
    """Runs Ray on this machine for the duration of the block, unless a cluster is connected."""
    with starting(shares) as ready:
        ready()
        yield


@contextlib.contextmanager
def starting(shares: Shares) -> Iterator[Callable[[], None]]:
    """As `running`, but Ray starts in the background; the yielded function waits until it runs, and
    raises UserError if it does not start.

    Ray's processes end with the thread that started them, so the thread lives as long as they do.
    """
    if ray.is_initialized():
        yield lambda: None
        return
    with ThreadPoolExecutor(1, thread_name_prefix="ray") as thread:
        running_ray = local_ray(shares.cores)
        started = thread.submit(running_ray.__enter__)
        try:
            yield started.result
        finally:
            if started.exception() is None:  # waits for it
                running_ray.__exit__(None, None, None)


def check_nodes(folders: Sequence[Path]) -> None:
    """Check that every machine of the cluster can train: it has the libraries, and sees the folders
    under the same path as this one.

    Raises:
        UserError: the first machine that cannot, and why.
    """
    marker, text = f".seen-{uuid.uuid4().hex}", uuid.uuid4().hex
    try:
        for folder in folders:
            (folder / marker).write_text(text, encoding="utf-8")
        markers = [str(folder.resolve() / marker) for folder in folders]
        check = ray.remote(missing_on_node)
        replies = []
        for node in _alive():
            name = (
                f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, "
                f"{node['NodeID'][:8]})"
            )
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            remote = check.options(num_cpus=0, scheduling_strategy=here)
            replies.append((name, remote.remote(markers, text)))
        for name, reply in replies:
            try:
                fault = ray.get(reply, timeout=ANSWER_TIMEOUT_S)
            except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError) as error:
                raise UserError(
                    f"{name} does not answer ({first_line(error)}); fix it or remove it from the "
                    "cluster"
                ) from error
            if fault:
                raise UserError(f"{name} {fault}")
    finally:
        for folder in folders:
            (folder / marker).unlink(missing_ok=True)


def missing_on_node(markers: Sequence[str], text: str) -> str | None:
    """What this machine lacks for training; None if nothing.

    Args:
        markers: files in the shared folders, which contain `text`.
    """
    lacking = [name for name in LIBRARIES if find_spec(name) is None]
    if lacking:
        return f"lacks {', '.join(lacking)}; install the same environment there"
    for path in map(Path, markers):
        try:
            shared = path.read_text(encoding="utf-8") == text and os.access(path.parent, os.W_OK)
        except OSError:
            shared = False
        if not shared:
            return (
                f"does not see {path.parent} as this machine does, or may not write there; "
                "choose a --runs-dir that all machines share under one path"
            )
    return None


def dead_nodes() -> set[str]:
    """Ids of machines that have left the cluster."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def _alive() -> list[dict]:
    return [node for node in ray.nodes() if node["Alive"]]


class Stopwatch:
    """Latency of designs, from a `Bench` on a worker of its own: on this machine if it has room,
    else on another one of the cluster.

    Args:
        baseline: the design that others are timed with.
        baseline_cost: its cost, if the study has measured it already.
        plugins: absolute paths of plugins that the designs need.
    """

    def __init__(
        self,
        baseline: Detector,
        baseline_cost: Cost | None = None,
        plugins: Sequence[str] = (),
    ):
        self._plugins = plugins
        self._baseline, self._baseline_cost = baseline, baseline_cost
        self._bench: Any = None

    def start(self, shares: Shares) -> None:
        """Reserve the worker. Call it when Ray runs, before anything trains there.

        Raises:
            UserError: the cluster has no room for it, or it is on another machine than before.
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
            .remote(self._baseline, shares.device, self._plugins)
        )
        try:
            machine = ray.get(self._bench.machine.remote(), timeout=ANSWER_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError as error:
            raise UserError(
                "no node has a free core (and GPU share) to measure latency on; add a node, or "
                "stop other jobs on the cluster"
            ) from error
        if self._baseline_cost is None:
            self._baseline_cost = replace(
                Cost.of(self._baseline),
                machine=machine,
                latency_ms=ray.get(self._bench.baseline_ms.remote()),
            )
        self._check_machine(machine)

    def __call__(self, detector: Detector) -> Cost:
        """The cost of a design, latency included. Takes some seconds.

        Raises:
            TrainingError: the design cannot run there.
            UserError: the worker was restarted on another machine.
        """
        baseline = self._started()
        if detector == self._baseline:
            return baseline
        try:
            ratio, machine = ray.get(
                [self._bench.ratio.remote(detector), self._bench.machine.remote()]
            )
        except ray.exceptions.RayError as error:
            raise TrainingError(
                f"latency could not be measured: {str(error).strip().splitlines()[-1][:200]}"
            ) from error
        self._check_machine(machine)
        assert baseline.latency_ms is not None
        return replace(Cost.of(detector), machine=machine, latency_ms=ratio * baseline.latency_ms)

    def _started(self) -> Cost:
        assert self._baseline_cost is not None, "call start first"
        return self._baseline_cost

    def _check_machine(self, machine: str) -> None:
        before = self._started().machine
        if machine != before:
            raise UserError(
                f"the latencies of this study were measured on {before}, now it would be "
                f"{machine}: they cannot be compared; continue there, or start a new study"
            )
