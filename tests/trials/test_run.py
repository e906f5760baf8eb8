"""A segment trains to its rung; its reports and the trial's log say what happened."""

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


def fit_that_raises(error):
    def fit(*args, **kwargs):
        print("about to fail")
        raise error
        yield

    return fit


def test_the_log_has_a_line_for_each_epoch(segment):
    partial = Path(segment.workdir) / ".last.pt.1.tmp"
    partial.parent.mkdir(parents=True)
    partial.write_text("left by a worker that was killed while writing")
    reports = list(run_segment(segment))
    assert [(r.epoch.epoch, r.ended) for r in reports] == [(1, False), (2, True)]
    lines = log_of(segment).splitlines()
    assert len(lines) == 3
    assert "to epoch 2 on cpu, 1 threads; process" in lines[0]
    assert f"epoch 1: {next(iter(reports[0].epoch.losses))} " in lines[1]
    assert f"AP easy {reports[1].epoch.ap['easy']:.3f}" in lines[2]
    assert not partial.exists()


def test_output_and_log_messages_of_a_worker_are_in_the_log(segment, monkeypatch, capsys):
    def fit(*args, **kwargs):
        yield from ()
        print("printed")
        print("warned", file=sys.stderr)  # as Python's warnings
        logging.getLogger("some.library").warning("logged")
        raise ValueError("raised")

    monkeypatch.setattr(detector.training.fit, "fit", fit)
    (report,) = run_segment(segment)
    assert report.failure.reason == "ValueError: raised"
    for text in ("printed", "warned", "logged", "ValueError: raised", "Traceback"):
        assert text in log_of(segment)
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
def test_errors_become_reports(segment, monkeypatch, error, reason, kinds):
    monkeypatch.setattr(detector.training.fit, "fit", fit_that_raises(error))
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


@pytest.mark.parametrize(
    ("of_segment", "of_recipe", "accumulate"), [(1, 1, 1), (4, 1, 4), (4, 8, 8)]
)
def test_a_segment_can_ask_for_more_accumulation(
    segment, monkeypatch, of_segment, of_recipe, accumulate
):
    def fit(config, recipe, *images, **kwargs):
        yield from ()
        recipes.append(recipe)
        raise ValueError("enough")

    recipes = []
    monkeypatch.setattr(detector.training.fit, "fit", fit)
    segment = with_recipe(segment, accumulate=of_recipe)
    list(run_segment(replace(segment, accumulate=of_segment)))
    assert recipes == [replace(segment.recipe, accumulate=accumulate)]


@pytest.mark.parametrize(("device", "workers"), [("cuda", 3), ("cpu", None)])
def test_with_a_gpu_the_cores_of_a_trial_prepare_its_batches(segment, monkeypatch, device, workers):
    def fit(*args, **kwargs):
        values.append(kwargs["workers"])
        raise ValueError("enough")
        yield

    values = []
    monkeypatch.setattr(detector.training.fit, "fit", fit)
    monkeypatch.setattr("trials.run.pin_threads", lambda threads: None)
    list(run_segment(replace(segment, device=device, threads=3)))
    assert values == [workers]


def test_a_loss_that_is_not_finite_fails_the_trial(segment):
    optimizer = replace(segment.recipe.optimizer, lr=1e30, warmup_epochs=0.0)
    *_, last = run_segment(with_recipe(segment, optimizer=optimizer))
    assert last.failure.reason.startswith("TrainingError: loss not finite at epoch")
    assert not last.failure.is_transient
    assert "TrainingError: loss not finite" in log_of(segment)


def test_a_design_that_cannot_be_built_fails_the_trial(segment, monkeypatch):
    error = ConfigError("neck.width: too wide for this test")
    monkeypatch.setattr(detector.training.fit, "fit", fit_that_raises(error))
    (report,) = run_segment(segment)
    assert report.failure.reason.startswith("ConfigError: neck.width: too wide")
    assert not report.failure.is_transient


def test_a_full_disk_is_reported_as_such(segment, monkeypatch):
    def full(content, file):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:  # the message of torch
            raise RuntimeError("[enforce fail at inline_container.cc:671]") from error

    monkeypatch.setattr(torch, "save", full)
    (report,) = run_segment(segment)
    assert report.failure.disk_full
    assert not list(Path(segment.workdir).glob("*last*"))


def test_only_one_process_at_a_time_trains_in_a_folder(segment, monkeypatch):
    monkeypatch.setattr(detector.training.fit, "fit", fit_that_raises(ValueError("started")))
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
    assert [r.failure.reason for r in reports] == ["ValueError: started"]
