"""Checks of a cluster before a search trains there, with a fake Ray."""

from types import SimpleNamespace

import pytest
import ray

from detector.base.errors import TrainingError, UserError
from detector.config.presets import load_preset
from trials.compute import bench, cluster
from trials.compute.bench import Bench
from trials.compute.cluster import Stopwatch, check_nodes, connected, missing_on_node
from trials.compute.resources import Shares
from trials.record import Cost

BASELINE = load_preset("retinaface_mobile025")[0]


class FakeRay:
    """Runs every call at once, in this process."""

    exceptions = ray.exceptions

    def __init__(self, answer=lambda call: call()):
        self._answer = answer

    def remote(self, what):
        return SimpleNamespace(options=lambda **asked: self._remote(what))

    def _remote(self, what):
        if not isinstance(what, type):
            return SimpleNamespace(remote=lambda *args: lambda: what(*args))
        return SimpleNamespace(remote=lambda *args: _Actor(what(*args)))

    def get(self, call, timeout=None):
        return [self.get(one) for one in call] if isinstance(call, list) else self._answer(call)

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "00")


class _Actor:
    def __init__(self, instance):
        self._instance = instance

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *args: lambda: getattr(self._instance, name)(*args))


@pytest.fixture
def fake_ray(monkeypatch):
    def install(**how):
        monkeypatch.setattr(cluster, "ray", FakeRay(**how))
        monkeypatch.setattr(cluster, "NodeAffinitySchedulingStrategy", lambda *a, **k: None)
        monkeypatch.setattr(
            cluster,
            "_alive",
            lambda: [
                {
                    "NodeID": f"{number}" * 8,
                    "NodeManagerHostname": f"host{number}",
                    "NodeManagerAddress": f"10.0.0.{number}",
                }
                for number in (1, 2)
            ],
        )

    return install


def test_nodes_that_see_the_folder_are_accepted(fake_ray, tmp_path):
    fake_ray()
    check_nodes([tmp_path])
    assert not list(tmp_path.iterdir())


def test_a_node_that_does_not_see_the_folder_is_named(fake_ray, tmp_path):
    asked = []

    def second_is_blind(call):
        asked.append(call)
        return call() if len(asked) == 1 else "does not see it"

    fake_ray(answer=second_is_blind)
    with pytest.raises(UserError, match=r"^node host2 \(10.0.0.2, 22222222\) does not see it$"):
        check_nodes([tmp_path])
    assert not list(tmp_path.iterdir())


def test_a_node_that_does_not_answer_is_named(fake_ray, tmp_path):
    def silent(call):
        raise ray.exceptions.GetTimeoutError("60 s are over")

    fake_ray(answer=silent)
    with pytest.raises(UserError, match=r"^node host1 .* does not answer \(60 s are over\)"):
        check_nodes([tmp_path])


def test_a_node_that_lacks_something_says_so(tmp_path, monkeypatch):
    stamp = tmp_path / "stamp"
    assert f"does not see {tmp_path}" in missing_on_node([str(stamp)], "text")
    stamp.write_text("of another disk")
    assert f"does not see {tmp_path}" in missing_on_node([str(stamp)], "text")
    stamp.write_text("text")
    assert missing_on_node([str(stamp)], "text") is None
    monkeypatch.setattr(cluster, "LIBRARIES", ("torch", "no_such_library"))
    assert missing_on_node([str(stamp)], "text").startswith("lacks no_such_library; install")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", "a search decides where its storage is"),
        ("127.0.0.1:1", "--address 127.0.0.1:1: no Ray cluster that this machine is part of"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(monkeypatch, address, message):
    def refuse(**asked):
        raise ConnectionError("not there\nand more")

    monkeypatch.setattr(cluster.ray, "init", refuse)
    with pytest.raises(UserError, match=message) as error, connected(address):
        pass
    assert "\n" not in str(error.value)


SHARES = Shares(concurrency=1, cpus=1, gpus=0.0, stopwatch=True)


@pytest.fixture
def timed(monkeypatch):
    """A bench with a latency of 1 ms per million MACs, slowed down by ever more other load."""
    from detector.inference import latency as module

    load = iter(range(1, 1000))

    def latencies(models, *, repeats, device, threads, warmup=3):
        slow = next(load)
        return {name: SimpleNamespace(median_ms=slow * macs / 1e6) for name, macs in models.items()}

    monkeypatch.setattr(bench, "pin_threads", lambda threads: None)
    monkeypatch.setattr(module, "latencies", latencies)
    monkeypatch.setattr(
        module,
        "latency",
        lambda model, **how: latencies({"": model}, repeats=1, device="cpu", threads=1)[""],
    )
    monkeypatch.setattr(Bench, "_built", lambda self, detector: Cost.of(detector).macs)


def test_latency_does_not_depend_on_other_load(fake_ray, timed):
    fake_ray()
    stopwatch = Stopwatch(BASELINE)
    stopwatch.start(SHARES)
    baseline = stopwatch(BASELINE)
    assert baseline.latency_ms == pytest.approx(baseline.macs / 1e6)
    other = load_preset("scrfd_0.5g")[0]
    for _ in range(3):
        cost = stopwatch(other)
        assert cost.latency_ms == pytest.approx(cost.macs / 1e6)
        assert cost.machine == baseline.machine
        assert (cost.params, cost.macs) == (Cost.of(other).params, Cost.of(other).macs)


def test_a_resumed_study_keeps_its_baseline_and_its_machine(fake_ray, timed):
    fake_ray()
    first = Stopwatch(BASELINE)
    first.start(SHARES)
    known = first(BASELINE)
    second = Stopwatch(BASELINE, known)
    second.start(SHARES)
    assert second(BASELINE) == known
    elsewhere = Stopwatch(BASELINE, known.__class__(**known.to_dict() | {"machine": "Pentium"}))
    with pytest.raises(UserError, match=r"measured on Pentium, now it .* cannot be compared"):
        elsewhere.start(SHARES)


def test_a_design_that_cannot_run_is_a_training_error(fake_ray, timed, monkeypatch):
    fake_ray()
    stopwatch = Stopwatch(BASELINE)
    stopwatch.start(SHARES)

    def out_of_memory(self, detector):
        raise ray.exceptions.RayError("a traceback\nout of memory")

    monkeypatch.setattr(Bench, "ratio", out_of_memory)
    with pytest.raises(TrainingError, match=r"^latency could not be measured: out of memory$"):
        stopwatch(load_preset("scrfd_0.5g")[0])


def test_a_worker_that_came_back_on_another_machine_ends_the_search(fake_ray, timed, monkeypatch):
    fake_ray()
    stopwatch = Stopwatch(BASELINE)
    stopwatch.start(SHARES)
    monkeypatch.setattr(Bench, "machine", lambda self: "Pentium")
    with pytest.raises(UserError, match="now it would be Pentium"):
        stopwatch(load_preset("scrfd_0.5g")[0])
