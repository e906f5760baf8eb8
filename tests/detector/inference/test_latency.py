"""Latency: turns, warm-up, the middle of known times, the machine's name."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from detector.inference.latency import _timed, latencies, latency


def test_models_take_turns_and_the_warm_up_is_not_timed(monkeypatch):
    calls = []
    clock = iter(np.cumsum([0.001 * (i // 2) for i in range(100)]))

    def note(name):
        return lambda image: calls.append((name, tuple(image.shape), image.dtype))

    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    result = latencies({"a": note("a"), "b": note("b")}, (48, 64), repeats=3, warmup=2)
    assert calls == [("a", (1, 3, 48, 64), torch.uint8), ("b", (1, 3, 48, 64), torch.uint8)] * 5
    # The k-th call of all takes k ms: a has calls 4, 6, 8 after the warm-up, b 5, 7, 9.
    assert result["a"].median_ms == pytest.approx(6)
    assert result["b"].median_ms == pytest.approx(7)
    assert (result["a"].p10_ms, result["a"].p90_ms) == pytest.approx((4.4, 7.6))
    assert result["a"].spread_ms == pytest.approx(3.2)
    assert result["a"].repeats == 3


def test_a_gpu_is_timed_by_events_around_the_pass(monkeypatch):
    """Fake events of a GPU report times of their own."""
    did = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, queue):
            did.append("event on " + queue)

        def synchronize(self):
            did.append("wait")

        def elapsed_time(self, later):
            return 4.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the queue of {device}")
    image = SimpleNamespace(is_cuda=True, device="cuda:1")
    assert _timed(lambda image: did.append("pass"), image) == 0.004
    event = "event on the queue of cuda:1"
    assert did == [event, "pass", event, "wait"]


def test_state_is_left_as_it_was():
    class Model(nn.Module):
        def forward(self, image):
            assert not self.training
            assert torch.is_inference_mode_enabled()
            seen.append(torch.get_num_threads())
            return image

    seen = []
    model = Model()
    before = torch.get_num_threads()
    result = latency(model, (32, 32), threads=before + 1, repeats=2)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    assert model.training
    assert not torch.is_inference_mode_enabled()
    assert f"{before + 1} threads, torch {torch.__version__}" in result.machine
    assert len(result.machine.split(",")[0]) > 3


def test_no_repeats_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        latency(lambda image: image, repeats=0)
