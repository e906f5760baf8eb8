"""How many trials train at once, and with what."""

import pytest

from detector.errors import UserError
from trials.resources import Node, Shares, shares_of

TWO_CORES, GPU_BOX = [Node(cpus=2)], [Node(cpus=16, gpus=2)]


@pytest.mark.parametrize(("nodes", "flags", "expected"), [
    (TWO_CORES, {}, (2, 1, 0.0)),
    (TWO_CORES, {"cpus": 2}, (1, 2, 0.0)),
    (TWO_CORES, {"cpus": 4}, (1, 4, 0.0)),  # more threads than cores, as told
    (TWO_CORES, {"concurrency": 5}, (5, 1, 0.0)),
    (TWO_CORES, {"stopwatch": True}, (1, 1, 0.0)),
    ([Node(cpus=1)], {"stopwatch": True}, (1, 1, 0.0)),
    (GPU_BOX, {}, (2, 1, 1.0)),
    (GPU_BOX, {"gpus": 0.25}, (8, 1, 0.25)),
    (GPU_BOX, {"gpus": 0.1, "cpus": 2}, (8, 2, 0.1)),  # cores run out first
    (GPU_BOX, {"gpus": 0.0}, (16, 1, 0.0)),
    (GPU_BOX, {"device": "cpu"}, (16, 1, 0.0)),
    (GPU_BOX, {"stopwatch": True}, (1, 1, 1.0)),
    ([Node(cpus=8, gpus=1)], {"stopwatch": True}, (1, 1, 0.5)),
    ([Node(cpus=3), Node(cpus=3)], {"cpus": 2}, (2, 2, 0.0)),  # no trial spans two nodes
    ([Node(cpus=3), Node(cpus=2)], {"cpus": 2, "stopwatch": True}, (2, 2, 0.0)),
    ([Node(cpus=4), Node(cpus=4, gpus=1)], {}, (1, 1, 1.0)),
])
def test_defaults_are_what_the_machines_have_room_for(nodes, flags, expected):
    shares = shares_of(nodes, **flags)
    assert (shares.concurrency, shares.cpus, shares.gpus) == expected
    assert shares.device == ("cuda" if expected[2] else "cpu")


def test_the_stopwatch_has_a_core_of_its_own():
    assert Shares(concurrency=3, cpus=2, gpus=0, stopwatch=True).cores == 7


@pytest.mark.parametrize(("nodes", "flags", "message"), [
    (TWO_CORES, {"device": "cuda"}, "--device cuda: no CUDA device is seen here"),
    (GPU_BOX, {"gpus": 3.0}, "--gpus-per-trial 3: this machine has 2; give at most that"),
    (GPU_BOX, {"gpus": -1.0}, "--gpus-per-trial -1: must not be negative"),
    (TWO_CORES, {"cpus": 0}, "--cpus-per-trial 0: must be at least 1"),
    (TWO_CORES, {"concurrency": 0}, "--concurrency 0: must be at least 1"),
    (2 * TWO_CORES, {"cpus": 3}, "--cpus-per-trial 3: no machine has more than 2 cores"),
])
def test_shares_that_no_machine_has_are_refused(nodes, flags, message):
    with pytest.raises(UserError, match=message):
        shares_of(nodes, **flags)
