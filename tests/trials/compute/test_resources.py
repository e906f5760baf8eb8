"""How many trials train at once, and with what."""

import os
from types import SimpleNamespace

import pytest
import torch

from detector.base.errors import UserError
from trials.compute.resources import Node, Shares, shares_of, this_machine

TWO_CORES, GPU_BOX = [Node(cpus=2)], [Node(cpus=16, gpus=2)]


@pytest.mark.parametrize(
    ("nodes", "flags", "expected"),
    [
        (TWO_CORES, {}, (2, 1, 0.0)),
        (TWO_CORES, {"cpus": 2}, (1, 2, 0.0)),
        (TWO_CORES, {"cpus": 4}, (1, 4, 0.0)),  # more threads than cores, as requested
        (TWO_CORES, {"concurrency": 5}, (5, 1, 0.0)),
        (TWO_CORES, {"stopwatch": True}, (1, 1, 0.0)),
        ([Node(cpus=1)], {"stopwatch": True}, (1, 1, 0.0)),
        (GPU_BOX, {"gpus": 1.0}, (2, 4, 1.0)),
        (GPU_BOX, {"gpus": 1.0, "cpus": 1}, (2, 1, 1.0)),
        (GPU_BOX, {"gpus": 0.25}, (8, 2, 0.25)),
        (GPU_BOX, {"gpus": 0.1, "cpus": 2}, (8, 2, 0.1)),  # cores run out first
        (GPU_BOX, {"gpus": 0.0}, (16, 1, 0.0)),
        (GPU_BOX, {"device": "cpu"}, (16, 1, 0.0)),
        (GPU_BOX, {"stopwatch": True}, (1, 4, 1.0)),
        ([Node(cpus=8, gpus=1)], {"stopwatch": True}, (1, 3, 0.5)),
        ([Node(cpus=3), Node(cpus=3)], {"cpus": 2}, (2, 2, 0.0)),  # no trial spans two nodes
        ([Node(cpus=3), Node(cpus=2)], {"cpus": 2, "stopwatch": True}, (2, 2, 0.0)),
        ([Node(cpus=4), Node(cpus=4, gpus=1)], {}, (2, 2, 0.5)),  # cores without a GPU stay idle
        ([Node(cpus=4), Node(cpus=4, gpus=1)], {"stopwatch": True}, (1, 1, 0.5)),
        ([Node(cpus=8, gpus=0.5)], {"stopwatch": True}, (1, 3, 0.25)),
        (2 * [Node(cpus=8, gpus=1)], {"gpus": 1.0, "stopwatch": True}, (1, 4, 1.0)),
        (2 * [Node(cpus=1)], {"stopwatch": True}, (1, 1, 0.0)),
        ([Node(cpus=0), Node(cpus=2)], {"stopwatch": True}, (1, 1, 0.0)),
        ([Node(cpus=2)], {"stopwatch": True, "cluster": True}, (1, 1, 0.0)),
        ([Node(cpus=2, gpus=1)], {"stopwatch": True, "cluster": True}, (1, 1, 0.5)),
    ],
)
def test_defaults_fit_the_machines(nodes, flags, expected):
    shares = shares_of(nodes, **flags)
    assert (shares.concurrency, shares.cpus, shares.gpus) == expected
    assert shares.device == ("cuda" if expected[2] else "cpu")


@pytest.mark.parametrize(
    ("nodes", "flags", "expected"),
    [
        (GPU_BOX, {}, (4, 4, 0.5)),  # memory unknown: 16 GB
        ([Node(cpus=16, gpus=1, gpu_gb=85)], {}, (8, 2, 0.125)),  # more would fit
        ([Node(cpus=64, gpus=1, gpu_gb=85)], {}, (8, 4, 0.125)),  # of 8 cores each, 4 are used
        ([Node(cpus=16, gpus=1, gpu_gb=85)], {"gpus": 1.0}, (1, 4, 1.0)),
        ([Node(cpus=16, gpus=1, gpu_gb=24)], {}, (4, 4, 0.25)),
        ([Node(cpus=16, gpus=1, gpu_gb=4)], {}, (1, 4, 1.0)),
        ([Node(cpus=4, gpus=1, gpu_gb=85)], {}, (4, 1, 0.25)),  # a core for each
        ([Node(cpus=4, gpus=1, gpu_gb=85)], {"cpus": 2}, (2, 2, 0.5)),
        ([Node(cpus=4, gpus=1, gpu_gb=85)], {"cpus": 8}, (1, 8, 1.0)),
        ([Node(cpus=4, gpus=8, gpu_gb=85)], {}, (4, 1, 1.0)),  # fewer cores than GPUs
        ([Node(cpus=16, gpus=1, gpu_gb=85)], {"concurrency": 2}, (2, 4, 0.5)),
        ([Node(cpus=16, gpus=2, gpu_gb=85)], {"concurrency": 5}, (5, 3, 0.3333)),
        ([Node(cpus=16, gpus=1, gpu_gb=85)], {"concurrency": 20}, (20, 2, 0.125)),
        ([Node(cpus=8, gpus=1), Node(cpus=32, gpus=4)], {}, (10, 4, 0.5)),
        ([Node(cpus=6, gpus=1, gpu_gb=85)], {}, (6, 1, 0.1666)),
        ([Node(cpus=28, gpus=4, gpu_gb=85)], {}, (28, 1, 0.1428)),
        ([Node(cpus=16, gpus=0.5, gpu_gb=85)], {}, (4, 4, 0.125)),
        ([Node(cpus=16, gpus=1, gpu_gb=85)], {"stopwatch": True}, (1, 4, 0.5)),
    ],
)
def test_trials_share_gpus_as_memory_and_cores_allow(nodes, flags, expected):
    shares = shares_of(nodes, **flags)
    assert (shares.concurrency, shares.cpus, shares.gpus) == expected
    assert shares.device == "cuda"


def test_gpus_of_this_machine_come_from_torch(monkeypatch, tmp_path):
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setattr("trials.compute.resources.GPU_DRIVERS", (str(tmp_path),))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda gpu: SimpleNamespace(total_memory=(80 - 40 * gpu) * 10**9),
    )
    assert this_machine() == Node(cpus=cores, gpus=2, gpu_gb=40)
    assert this_machine("cpu") == Node(cpus=cores)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert this_machine() == Node(cpus=cores)


def test_the_stopwatch_has_its_own_core():
    assert Shares(concurrency=3, cpus=2, gpus=0, stopwatch=True).cores == 7


@pytest.mark.parametrize(
    ("nodes", "flags", "message"),
    [
        (TWO_CORES, {"device": "cuda"}, "--device cuda: no CUDA device is visible here"),
        (GPU_BOX, {"gpus": 3.0}, "--gpus-per-trial 3: this machine has 2; give at most that"),
        (GPU_BOX, {"gpus": -1.0}, "--gpus-per-trial -1: must not be negative"),
        (TWO_CORES, {"cpus": 0}, "--cpus-per-trial 0: must be at least 1"),
        (TWO_CORES, {"concurrency": 0}, "--concurrency 0: must be at least 1"),
        (2 * TWO_CORES, {"cpus": 3}, "--cpus-per-trial 3: no machine has more than 2 cores"),
        (
            TWO_CORES,
            {"cpus": 3, "cluster": True},
            "--cpus-per-trial 3: no machine has more than 2 cores",
        ),
    ],
)
def test_shares_that_no_machine_has_are_refused(nodes, flags, message):
    with pytest.raises(UserError, match=message):
        shares_of(nodes, **flags)


@pytest.mark.parametrize(
    ("nodes", "gpus", "largest"),
    [
        ([Node(cpus=8, gpus=1)], 1.0, "0.5"),
        ([Node(cpus=8, gpus=1)], 0.51, "0.5"),
        (GPU_BOX, 2.0, "1"),
        ([Node(cpus=8, gpus=4)], 3.0, "2"),
        ([Node(cpus=8, gpus=0.5)], 0.5, "0.25"),
        ([Node(cpus=8), Node(cpus=8, gpus=1)], 1.0, "0.5"),
    ],
)
def test_a_gpu_that_a_trial_would_wait_for_beside_the_stopwatch_is_refused(nodes, gpus, largest):
    for concurrency in (None, 2):
        with pytest.raises(UserError, match=rf"^--gpus-per-trial .*; give at most {largest}$"):
            shares_of(nodes, gpus=gpus, concurrency=concurrency, stopwatch=True)
    assert shares_of(nodes, gpus=float(largest), stopwatch=True).concurrency >= 1


@pytest.mark.parametrize(
    ("nodes", "flags", "message"),
    [
        (TWO_CORES, {"cpus": 2}, "--cpus-per-trial 2: no machine has as many .*; give at most 1"),
        ([Node(cpus=1)], {}, "--address: the cluster has no core for a trial beside measuring"),
        (
            [Node(cpus=8), Node(cpus=1, gpus=1)],
            {},
            "--address: the cluster has no core for a trial on a GPU beside measuring",
        ),
        (
            [Node(cpus=8), Node(cpus=3, gpus=1)],
            {"cpus": 4},
            "--cpus-per-trial 4: no machine with a GPU has as many .*; give at most 2",
        ),
    ],
)
def test_cores_that_a_cluster_lacks_beside_the_stopwatch_are_named(nodes, flags, message):
    with pytest.raises(UserError, match=message):
        shares_of(nodes, **flags, stopwatch=True, cluster=True)
