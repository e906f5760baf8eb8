"""A segment trains to its rung; its reports and the trial's log say what happened."""

import errno
import fcntl
import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import helpers
import pytest
import torch

import detector.training.fit
from detector.base.errors import ConfigError
from detector.data.cache import cache_images
from trials.record import Cost
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


@pytest.mark.parametrize(
    ("params", "macs", "fails"), [(1, 0, True), (-1, 0, True), (0, 1, True), (0, -1, False)]
)
def test_a_design_that_counts_too_little_fails_the_trial(segment, monkeypatch, params, macs, fails):
    """As layers of plugins may; more MACs than thop sees are fine."""
    counted = Cost.of(segment.detector)
    monkeypatch.setattr(
        "detector.network.counters.thop_cost",
        lambda detector, size: (counted.params + params, counted.macs + macs),
    )
    report = next(run_segment(segment))
    assert (report.failure is not None) == fails
    if fails:
        assert f"where its layers count {counted.params:,} and {counted.macs:,}" in (
            report.failure.reason
        )


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


@pytest.mark.parametrize("kind", ["cut", "flipped", "misfit"])
def test_a_damaged_checkpoint_is_removed_and_reported(segment, kind):
    """Then the training starts again, with the same result as the first time."""
    path = Path(segment.workdir) / "last.pt"
    first = [report.epoch for report in run_segment(replace(segment, until=1))]
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        helpers.flip_weight(path)
    else:
        saved = torch.load(path, weights_only=True)
        del saved["model"][next(iter(saved["model"]))]
        torch.save(saved, path)
    (report,) = run_segment(replace(segment, epochs_reported=1))
    assert report.failure.checkpoint_damaged and not report.failure.is_transient
    assert not path.exists()
    again = [report.epoch for report in run_segment(segment)]
    assert [epoch.epoch for epoch in again] == [1, 2]
    assert again[0].losses == first[0].losses


def test_damaged_images_are_reported_as_such(segment):
    index = Path(segment.train) / "index.json"
    index.write_text(index.read_text()[:99])
    (report,) = run_segment(segment)
    assert report.failure.images_damaged and "resume" in report.failure.reason


def test_a_damaged_start_does_not_fail_a_trial(segment):
    Path(segment.workdir).mkdir(parents=True)
    (Path(segment.workdir) / "start.json").write_text('{"sou')
    assert [report.failure for report in run_segment(segment)] == [None, None]


def test_a_trial_starts_without_a_damaged_parent(segment, tmp_path):
    (tmp_path / "init.pt").write_bytes(b"PK cut off")
    reports = list(run_segment(replace(segment, init=str(tmp_path / "init.pt"))))
    assert reports[-1].failure is None and reports[-1].notes["damaged_init"] == "cut off"
    assert "init.pt is damaged (cut off)" in log_of(segment)


def test_workers_need_no_presets():
    """A cluster's workers get the packages `detector` and `trials`, without search_spaces."""
    code = (
        "import detector.config.shipped as shipped, pathlib;"
        "shipped.SHIPPED = pathlib.Path('/none');"
        "import trials.run, detector.training.fit, detector.inference.predict"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
