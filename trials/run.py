"""One segment of a trial: train one design from its last epoch to a rung."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detector.config import Detector
from detector.recipe import Recipe
from detector.structs import Struct
from trials.record import EpochResult


@dataclass(frozen=True, kw_only=True)
class Segment(Struct):
    """What a worker needs to train one design up to a rung; plain data."""

    number: int
    """Of the trial."""
    detector: dict
    recipe: dict
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


@dataclass(frozen=True, kw_only=True)
class Failure(Struct):
    """Why a segment ended without reaching its rung."""

    reason: str
    """One line."""
    traceback: str = ""
    may_pass: bool = False
    """A second try could succeed (a killed worker, memory taken by others); a NaN would not."""


@dataclass(frozen=True, kw_only=True)
class SegmentReport(Struct):
    """What a worker tells after each epoch, or when the segment cannot go on."""

    number: int
    epoch: EpochResult | None = None
    failure: Failure | None = None
    ended: bool = False
    notes: dict | None = None


def run_segment(segment: Segment) -> Iterator[SegmentReport]:
    """Train a segment, one report an epoch; the last one has `ended`.

    Never raises: a fault becomes a report with a `failure`.
    """
    try:
        yield from _train(segment)
    except Exception as error:  # whatever it is, it is this trial's fault alone
        yield SegmentReport(number=segment.number, ended=True, failure=Failure(
            reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            traceback=traceback.format_exc(), may_pass=_may_pass(error)))


def _train(segment: Segment) -> Iterator[SegmentReport]:
    import torch

    from detector.cost import thop_cost
    from detector.data import CachedImages
    from detector.fit import fit
    from detector.pretrained import read_start

    torch.set_num_threads(segment.threads)
    detector, recipe = Detector.from_dict(segment.detector), Recipe.from_dict(segment.recipe)
    workdir = Path(segment.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    notes = {"device": segment.device, "threads": segment.threads}
    if not (workdir / "last.pt").exists():
        params, macs = thop_cost(detector, (640, 640))
        notes["thop"] = {"params": params, "macs": macs}
    epochs = fit(detector, recipe, CachedImages(Path(segment.train)),
                 CachedImages(Path(segment.holdout)),
                 workdir=workdir, device=segment.device, until=segment.until,
                 evaluate_at=segment.evaluate_at,
                 told=segment.told, init=segment.init)
    for epoch in epochs:
        if start := read_start(workdir):
            notes["start"] = start
        result = EpochResult(epoch=epoch.epoch, losses=epoch.losses, lr=epoch.lr,
                             seconds=epoch.seconds, ap=epoch.ap)
        yield SegmentReport(number=segment.number, epoch=result, notes=notes,
                            ended=epoch.epoch >= segment.until)


def _may_pass(error: Exception) -> bool:
    return isinstance(error, (MemoryError, OSError)) or "out of memory" in str(error).lower()
