"""What a worker does besides the training of a segment."""

from pathlib import Path

import pytest
import torch

from detector.config.presets import load_preset
from trials import run
from trials.run import Segment, pin_threads, release_memory, run_segment


@pytest.fixture
def segment(tmp_path):
    detector, recipe = load_preset("retinaface_mobile025")
    for name in ("train", "holdout"):
        (tmp_path / name).mkdir()
    return Segment(
        number=3,
        detector=detector,
        recipe=recipe,
        until=1,
        evaluate_at=(1,),
        epochs_reported=0,
        workdir=str(tmp_path / "work"),
        train=str(tmp_path / "train"),
        holdout=str(tmp_path / "holdout"),
        device="cpu",
    )


def test_gpu_memory_is_released_when_a_segment_is_closed(monkeypatch, segment):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty_cache"))
    monkeypatch.setattr(run, "_train", lambda segment: iter(["report"]))
    reports = run_segment(segment)
    assert next(reports) == "report"
    assert not calls
    reports.close()
    assert calls == ["empty_cache"]


def test_a_failure_report_keeps_no_tensors_alive(monkeypatch, segment):
    import weakref

    class Model:
        pass

    references = []

    def out_of_memory(segment):
        model = Model()
        references.append(weakref.ref(model))
        raise RuntimeError("CUDA out of memory")
        yield

    monkeypatch.setattr(run, "_train", out_of_memory)
    report = next(run_segment(segment))
    assert report.failure.is_transient
    assert "out_of_memory" in report.failure.traceback
    assert references[0]() is None


def test_without_a_gpu_nothing_is_collected(monkeypatch):
    monkeypatch.setattr(run.gc, "collect", lambda: pytest.fail("takes 0.2 s for nothing"))
    release_memory()


def test_threads_are_pinned_in_torch_and_opencv():
    import cv2

    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        pin_threads(1)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_a_cache_that_the_node_does_not_see_is_named(segment):
    Path(segment.train).rmdir()
    (report,) = run_segment(segment)
    assert report.ended
    assert f"does not see {segment.train}" in report.failure.reason
    assert not report.failure.is_transient
    assert not Path(segment.workdir).exists()


def test_what_is_called_in_tunes_loop_is_not_stored_with_tunes_results():
    """A display of progress, with its lock and all records of the study, cannot be pickled."""
    import pickle
    import threading

    from trials.compute.trainable import _TickCallback

    lock = threading.RLock()
    assert pickle.loads(pickle.dumps(_TickCallback(lock.acquire)))
