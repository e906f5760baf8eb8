"""One segment of a trial: a design trained from its last epoch to the next rung."""

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
from detector.weights.file_kinds import DamagedCheckpoint, damage, discard
from detector.weights.file_names import LAST
from trials.counts import built_counts
from trials.logs import captured_in_log, timestamped
from trials.record import EpochResult


@dataclass(frozen=True, kw_only=True)
class Segment(Struct):
    """What a worker needs to train a design up to a rung; plain data."""

    number: int
    """Number of the trial."""
    detector: Detector
    recipe: Recipe
    until: int
    """Last epoch (1-based) of the segment."""
    evaluate_at: tuple[int, ...]
    """Epochs that are evaluated: the rungs."""
    epochs_reported: int
    """Number of epochs that the trial's record already has."""
    workdir: str
    """Absolute path of the trial's folder; `fit` resumes from a checkpoint in it."""
    train: str
    """Absolute path of the cached training images."""
    holdout: str
    """Absolute path of the cached images that trials are evaluated on."""
    init: str | None = None
    """Checkpoint of the trial to inherit weights from; None means the recipe's weights."""
    device: str = "auto"
    threads: int = 1
    accumulate: int = 1
    """Gradient accumulation: minimum number of parts in which the images of a step are processed.
    More than the recipe's after a trial ran out of memory."""
    plugins: tuple[str, ...] = ()
    """Absolute paths of the study's copies of plugins, see `trials.plugins`."""


@dataclass(frozen=True, kw_only=True)
class Failure(Struct):
    """Why a segment ended without reaching its rung."""

    reason: str
    """One line."""
    traceback: str = ""
    is_transient: bool = False
    """A retry could succeed (a killed worker, memory used by others); after a NaN it would not."""
    disk_full: bool = False
    """Not caused by this trial: every other one would fail in the same way."""
    checkpoint_damaged: bool = False
    """The trial's own, which is removed, so it starts again."""
    images_damaged: bool = False
    """The cached images, which all trials share."""
    out_of_memory: bool = False
    """Of the GPU or of the machine; fewer images at a time may fit."""
    node_died: bool = False
    """The whole machine died, not only this worker, so the trial is probably not the cause."""


@dataclass(frozen=True, kw_only=True)
class SegmentReport(Struct):
    """What a worker reports after each epoch, or when the segment fails."""

    number: int
    """Number of the trial."""
    epoch: EpochResult | None = None
    failure: Failure | None = None
    ended: bool = False
    """Whether this is the segment's last report."""
    notes: dict | None = None
    """Merged into the record's notes."""


def run_segment(segment: Segment) -> Generator[SegmentReport, None, None]:
    """Train a segment: yields one report per epoch, the last one with `ended`.

    Never raises: an error becomes a report with a `failure`. Output goes to the log in the trial's
    folder, where no other process trains at the same time. Cached GPU memory is released when the
    generator is closed.
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
        _check_visible(segment)
        with captured_in_log(Path(segment.workdir)):
            return next(reports)
    except Exception as error:  # any error fails this trial only
        from detector.data.cache_files import DamagedCache

        if isinstance(error, DamagedCheckpoint):
            discard(Path(segment.workdir) / LAST)
        # Returned, not yielded here: a suspended except block keeps the error's frames alive, and
        # with them their tensors.
        return SegmentReport(
            number=segment.number,
            ended=True,
            failure=Failure(
                reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                traceback=traceback.format_exc(),
                is_transient=_is_transient(error),
                disk_full=disk_full(error),
                checkpoint_damaged=isinstance(error, DamagedCheckpoint),
                images_damaged=isinstance(error, DamagedCache),
                out_of_memory=out_of_memory(error),
            ),
        )


def _check_visible(segment: Segment) -> None:
    """Raise a UserError if this machine cannot see the cached images."""
    for folder in (segment.train, segment.holdout):
        if not Path(folder).is_dir():
            raise UserError(
                f"{platform.node()} does not see {folder}; put the study into a folder "
                "that all nodes share (--runs-dir)"
            )


def release_memory() -> None:
    """Release the GPU memory that torch caches, for the next trial and others on the same GPU."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()  # takes 0.2 s, so only if torch uses a GPU
        torch.cuda.empty_cache()


def pin_threads(threads: int) -> None:
    """Limit torch and OpenCV to a number of threads; by default each uses all cores."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _train(segment: Segment) -> Iterator[SegmentReport]:
    from detector.data.cache import CachedImages
    from detector.training.fit import fit
    from detector.weights.pretrained import read_start

    pin_threads(segment.threads)
    detector, recipe = segment.detector, segment.recipe
    recipe = replace(recipe, accumulate=max(recipe.accumulate, segment.accumulate))
    workdir = Path(segment.workdir)
    for partial in workdir.glob(".last.*.tmp"):  # left by a worker that was killed while writing
        partial.unlink()
    print(
        timestamped(
            f"design {arch_hash(detector)} to epoch {segment.until} on {segment.device}, "
            f"{segment.threads} threads; process {os.getpid()} on {platform.node()}"
            + (f"; each step in {recipe.accumulate} parts" if recipe.accumulate > 1 else "")
        )
    )
    notes = {"device": segment.device, "threads": segment.threads}
    if not (workdir / LAST).exists():
        params, macs = built_counts(detector)
        notes["thop"] = {"params": params, "macs": macs}
    init = segment.init
    if init and not (workdir / LAST).exists() and (reason := damage(Path(init))):
        print(timestamped(f"{init} is damaged ({reason}); the trial starts without it"))
        notes["damaged_init"], init = reason, None
    epochs = fit(
        detector,
        recipe,
        CachedImages(Path(segment.train)),
        CachedImages(Path(segment.holdout)),
        workdir=workdir,
        device=segment.device,
        until=segment.until,
        evaluate_at=segment.evaluate_at,
        epochs_reported=segment.epochs_reported,
        init=init,
        # trials that share a GPU prepare batches on their own share of the cores only
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
