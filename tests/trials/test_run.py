"""A segment trains to its rung and tells what happened, in reports and in the trial's log."""

import errno
import fcntl
import logging
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import detector.training.fit
from detector.base.errors import ConfigError
from detector.data.cache import cache_images
from trials.run import Segment, run_segment


@pytest.fixture
def segment(tiny_study, tiny_data, tmp_path):
    train, holdout = (
        cache_images(images, tmp_path / "cache", 64).folder
        for images in (tiny_data.train, tiny_data.selection)
    )
    record = tiny_study.records[0]
    return Segment(
        number=7,
        detector=record.detector,
        recipe=record.recipe,
        until=2,
        evaluate_at=(2,),
        epochs_reported=0,
        workdir=str(tmp_path / "trials" / "0007"),
        train=str(train),
        holdout=str(holdout),
        device="cpu",
    )


def log_of(segment):
    return (Path(segment.workdir) / "log.txt").read_text()


def with_recipe(segment, **changes):
    return replace(segment, recipe=replace(segment.recipe, **changes))


def raising(error):
    def fit(*args, **kwargs):
        print("about to fail")
        raise error
        yield

    return fit


def test_the_log_tells_each_epoch(segment):
    half = Path(segment.workdir) / ".last.pt.1.tmp"
    half.parent.mkdir(parents=True)
    half.write_text("what a killed worker was writing")
    reports = list(run_segment(segment))
    assert [(r.epoch.epoch, r.ended) for r in reports] == [(1, False), (2, True)]
    lines = log_of(segment).splitlines()
    assert len(lines) == 3
    assert "to epoch 2 on cpu, 1 threads; process" in lines[0]
    assert f"epoch 1: {next(iter(reports[0].epoch.losses))} " in lines[1]
    assert f"AP easy {reports[1].epoch.ap['easy']:.3f}" in lines[2]
    assert not half.exists()


def test_what_a_worker_prints_and_logs_is_in_the_log(segment, monkeypatch, capsys):
    def fit(*args, **kwargs):
        yield from ()
        print("printed")
        print("warned", file=sys.stderr)  # where Python's warnings go, too
        logging.getLogger("some.library").warning("logged")
        raise ValueError("raised")

    monkeypatch.setattr(detector.training.fit, "fit", fit)
    (report,) = run_segment(segment)
    assert report.failure.reason == "ValueError: raised"
    for told in ("printed", "warned", "logged", "ValueError: raised", "Traceback"):
        assert told in log_of(segment)
    print("after")
    assert capsys.readouterr() == ("after\n", "")
    assert not any(
        isinstance(h, logging.StreamHandler) and h.stream.closed
        for h in logging.getLogger().handlers
    )


@pytest.mark.parametrize(
    ("error", "reason", "kinds"),
    [
        (MemoryError(), "MemoryError: ", {"is_transient", "out_of_memory"}),
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            "CUDA out of memory",
            {"is_transient", "out_of_memory"},
        ),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
            ),
            "can't allocate",
            {"is_transient", "out_of_memory"},
        ),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            "cuDNN",
            {"is_transient", "out_of_memory"},
        ),
        (OSError(errno.EIO, "Input/output error"), "Input/output error", {"is_transient"}),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "shapes", set()),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left",
            {"is_transient", "disk_full"},
        ),
    ],
)
def test_faults_become_reports(segment, monkeypatch, error, reason, kinds):
    monkeypatch.setattr(detector.training.fit, "fit", raising(error))
    (report,) = run_segment(segment)
    assert report.ended
    assert reason in report.failure.reason
    assert {
        kind
        for kind in ("is_transient", "disk_full", "out_of_memory", "node_died")
        if getattr(report.failure, kind)
    } == kinds
    assert report.failure.traceback.startswith("Traceback")
    assert "about to fail" in log_of(segment)


@pytest.mark.parametrize(("asked", "own", "parts"), [(1, 1, 1), (4, 1, 4), (4, 8, 8)])
def test_a_segment_can_ask_for_smaller_parts(segment, monkeypatch, asked, own, parts):
    def fit(config, recipe, *images, **kwargs):
        yield from ()
        seen.append(recipe)
        raise ValueError("enough")

    seen = []
    monkeypatch.setattr(detector.training.fit, "fit", fit)
    segment = with_recipe(segment, accumulate=own)
    list(run_segment(Segment(**vars(segment) | {"accumulate": asked})))
    assert seen == [replace(segment.recipe, accumulate=parts)]


@pytest.mark.parametrize(("device", "workers"), [("cuda", 3), ("cpu", None)])
def test_beside_a_gpu_the_cores_of_a_trial_prepare_its_batches(
    segment, monkeypatch, device, workers
):
    def fit(*args, **kwargs):
        seen.append(kwargs["workers"])
        raise ValueError("enough")
        yield

    seen = []
    monkeypatch.setattr(detector.training.fit, "fit", fit)
    monkeypatch.setattr("trials.run.pin_threads", lambda threads: None)
    list(run_segment(Segment(**vars(segment) | {"device": device, "threads": 3})))
    assert seen == [workers]


def test_a_loss_that_is_not_finite(segment):
    rate = replace(segment.recipe.optimizer, lr=1e30, warmup_epochs=0.0)
    *_, last = run_segment(with_recipe(segment, optimizer=rate))
    assert last.failure.reason.startswith("TrainingError: loss not finite at epoch")
    assert not last.failure.is_transient
    assert "TrainingError: loss not finite" in log_of(segment)


def test_a_design_that_cannot_be_built(segment, monkeypatch):
    error = ConfigError("neck.width: too wide for this test")
    monkeypatch.setattr(detector.training.fit, "fit", raising(error))
    (report,) = run_segment(segment)
    assert report.failure.reason.startswith("ConfigError: neck.width: too wide")
    assert not report.failure.is_transient


def test_a_checkpoint_that_does_not_fit_on_the_disk(segment, monkeypatch):
    def full(content, file):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:  # as torch words it
            raise RuntimeError("[enforce fail at inline_container.cc:671]") from error

    monkeypatch.setattr(torch, "save", full)
    (report,) = run_segment(segment)
    assert report.failure.disk_full
    assert not list(Path(segment.workdir).glob("*last*"))


def test_one_process_at_a_time_trains_in_a_folder(segment, monkeypatch):
    monkeypatch.setattr(detector.training.fit, "fit", raising(ValueError("begun")))
    Path(segment.workdir).mkdir(parents=True)
    reports = []
    with open(Path(segment.workdir) / "log.txt", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: reports.extend(run_segment(segment)))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert reports == []
    thread.join(10)
    assert [r.failure.reason for r in reports] == ["ValueError: begun"]
