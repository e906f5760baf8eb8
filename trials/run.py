"""One segment of a trial: train one design from its last epoch to a rung."""

from __future__ import annotations

import gc
import os
import platform
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from detector.base.errors import UserError, disk_full, out_of_memory
from detector.base.struct import Struct
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from detector.weights.file_names import LAST
from trials.logs import captured_in_log, timestamped
from trials.record import EpochResult


@dataclass(frozen=True, kw_only=True)
class Segment(Struct):
    """What a worker needs to train one design up to a rung; plain data."""

    number: int
    """Of the trial."""
    detector: Detector
    recipe: Recipe
    until: int
    """Epoch (1-based) after which the segment ends."""
    evaluate_at: tuple[int, ...]
    """Epochs that are evaluated: the rungs."""
    told: int
    """Epochs that the record has already."""
    workdir: str
    """Absolute folder of the trial; `fit` continues from the checkpoint it finds there."""
    train: str
    """Absolute folder of the cached training images."""
    holdout: str
    """Absolute folder of the cached images that trials are compared on."""
    init: str | None = None
    """Weights to start from in place of the recipe's (another trial's, where it inherits)."""
    device: str = "auto"
    threads: int = 1
    accumulate: int = 1
    """Parts of a step's images, one after the other, where the recipe asks for fewer: a trial that
    ran out of memory is tried again in more of them."""


@dataclass(frozen=True, kw_only=True)
class Failure(Struct):
    """Why a segment ended without reaching its rung."""

    reason: str
    """One line."""
    traceback: str = ""
    is_transient: bool = False
    """A second try could succeed (a killed worker, memory taken by others); a NaN would not."""
    disk_full: bool = False
    """No fault of the trial: every other one would fail likewise."""
    out_of_memory: bool = False
    """Of the GPU or the machine: fewer images at a time may fit."""
    node_died: bool = False
    """The whole machine went, not this worker alone: nothing that the trial is to blame for."""


@dataclass(frozen=True, kw_only=True)
class SegmentReport(Struct):
    """What a worker tells after each epoch, or when the segment cannot go on."""

    number: int
    epoch: EpochResult | None = None
    failure: Failure | None = None
    ended: bool = False
    notes: dict | None = None


def run_segment(segment: Segment) -> Generator[SegmentReport, None, None]:
    """Train a segment, one report an epoch; the last one has `ended`.

    Never raises: a fault becomes a report with a `failure`. What happens meanwhile stands in the
    log of the trial's folder, in which no other process trains at the same time. Memory of a GPU
    is given back when the generator is closed.
    """
    reports, report = _train(segment), None
    try:
        while report is None or not report.ended:
            report = _next(reports, segment)
            yield report
    finally:
        release_memory()


def _next(reports: Iterator[SegmentReport], segment: Segment) -> SegmentReport:
    try:
        _see(segment)
        with captured_in_log(Path(segment.workdir)):
            return next(reports)
    except Exception as error:  # whatever it is, it is this trial's fault alone
        # the report is told when nothing holds the fault's frames any more, and so its tensors
        return SegmentReport(
            number=segment.number,
            ended=True,
            failure=Failure(
                reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                traceback=traceback.format_exc(),
                is_transient=_is_transient(error),
                disk_full=disk_full(error),
                out_of_memory=out_of_memory(error),
            ),
        )


def _see(segment: Segment) -> None:
    for folder in (segment.train, segment.holdout):
        if not Path(folder).is_dir():
            raise UserError(
                f"{platform.node()} does not see {folder}; keep the study in a folder "
                "that all nodes share (--runs-dir)"
            )


def release_memory() -> None:
    """Give back what torch keeps of a GPU, for the next trial and for others that share it."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()  # takes 0.2 s, so not where there is nothing to gain
        torch.cuda.empty_cache()


def pin_threads(threads: int) -> None:
    """Let torch and OpenCV compute with so many threads: each would take every core there is."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _train(segment: Segment) -> Iterator[SegmentReport]:
    from detector.data.cache import CachedImages
    from detector.network.counters import thop_cost
    from detector.training.fit import fit
    from detector.weights.pretrained import read_start

    pin_threads(segment.threads)
    detector, recipe = segment.detector, segment.recipe
    recipe = replace(recipe, accumulate=max(recipe.accumulate, segment.accumulate))
    workdir = Path(segment.workdir)
    for half in workdir.glob(".last.*.tmp"):  # a killed worker was writing it
        half.unlink()
    print(
        timestamped(
            f"design {arch_hash(detector)} to epoch {segment.until} on {segment.device}, "
            f"{segment.threads} threads; process {os.getpid()} on {platform.node()}"
            + (f"; each step in {recipe.accumulate} parts" if recipe.accumulate > 1 else "")
        )
    )
    notes = {"device": segment.device, "threads": segment.threads}
    if not (workdir / LAST).exists():
        params, macs = thop_cost(detector, (640, 640))
        notes["thop"] = {"params": params, "macs": macs}
    epochs = fit(
        detector,
        recipe,
        CachedImages(Path(segment.train)),
        CachedImages(Path(segment.holdout)),
        workdir=workdir,
        device=segment.device,
        until=segment.until,
        evaluate_at=segment.evaluate_at,
        epochs_reported=segment.told,
        init=segment.init,
        # trials that share a machine have their own cores to prepare batches with
        workers=segment.threads if segment.device == "cuda" else None,
    )
    for epoch in epochs:
        if start := read_start(workdir):
            notes["start"] = start
        result = EpochResult(
            epoch=epoch.epoch, losses=epoch.losses, lr=epoch.lr, seconds=epoch.seconds, ap=epoch.ap
        )
        print(timestamped(_line(result)))
        yield SegmentReport(
            number=segment.number, epoch=result, notes=notes, ended=epoch.epoch >= segment.until
        )


def _line(epoch: EpochResult) -> str:
    """ "epoch 3: total 1.234, bbox 0.5, lr 0.01, 2.1 s; AP easy 0.512"."""
    losses = ", ".join(f"{name} {value:.4g}" for name, value in epoch.losses.items())
    levels = ", ".join(f"{name} {value:.3f}" for name, value in (epoch.ap or {}).items())
    return f"epoch {epoch.epoch}: {losses}, lr {epoch.lr:.4g}, {epoch.seconds:.1f} s" + (
        f"; AP {levels}" if levels else ""
    )


def _is_transient(error: Exception) -> bool:
    return isinstance(error, OSError) or out_of_memory(error)
