"""The one training loop: a generator of epochs, for proxy trials and full runs alike."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from detector.base.errors import TrainingError, UserError
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from detector.data.types import ImageSet
from detector.network.model import build_detector
from detector.training import distributed
from detector.training.ema import WeightAverage
from detector.training.feed import Feed
from detector.training.optim import load_optimizer_state, lr_at, make_optimizer, optimizer_state
from detector.training.step import Precision, layout, settle_norms, to_train
from detector.training.stepper import Stepper, StepResult
from detector.weights import checkpoint

LAST = "last.pt"
LOADER_THREADS = min(os.cpu_count() or 1, 16)
"""That prepare batches beside a GPU."""
NORM_IMAGES, NORM_PIXELS = (96, 384), 14e6
"""The last images of an epoch give the statistics of normalisation: so many at least and at most,
between the two what has so many pixels. (96 crops of 192 px alone move AP by up to a tenth.)"""

Progress = Callable[[int, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of training, as it is told to the caller."""

    epoch: int
    """1 after the first epoch."""
    losses: dict[str, float]
    """Mean over the epoch of each loss term, and of `total`, their weighted sum."""
    lr: float
    """Learning rate of the epoch's last step."""
    seconds: float
    """Training and evaluation."""
    ap: dict[str, float] | None
    """easy, medium, hard AP in [0, 1] on the hold-out, where the epoch was evaluated."""
    images: int
    """Training images seen in the epoch."""


def fit(
    config: Detector,
    recipe: Recipe,
    train: ImageSet,
    holdout: ImageSet | None,
    *,
    workdir: Path,
    device: str = "auto",
    until: int | None = None,
    evaluate_at: Collection[int] = (),
    told: int | None = None,
    workers: int | None = None,
    init: str | None = None,
    graph: bool | None = None,
    resident: bool | None = None,
    progress: Progress | None = None,
) -> Iterator[Epoch]:
    """Trains a detector and yields each epoch once its checkpoint is on disk.

    Goes on from `workdir`/last.pt where there is one, exactly as if it had never stopped; on a
    CPU two runs with the same number of threads are equal bit for bit.
    `detector.weights.checkpoint.load` reads last.pt; last.json beside it is readable. Called by
    each of several workers (those of torch's process group), they train as one on the same
    batches; the first one evaluates, and writes to the folder that all see.

    Args:
        train: images to learn from, best a cache.
        holdout: images for AP; none: no evaluation.
        device: auto (a GPU where there is one), cpu or cuda.
        until: the last epoch of this call, evaluated too; none: the recipe's last.
        evaluate_at: epochs evaluated beside those that the recipe asks for.
        told: epochs that the caller has heard of; those that last.pt has beyond are told first (the
            caller was killed between a checkpoint and its report). None: all of them.
        init: weights to start from, in place of the recipe's; as for `detector.weights.initialize`.
        workers: threads that prepare batches; none: 0 on a CPU, LOADER_THREADS beside a GPU.
        resident: whether the training images lie in the GPU's memory; none: where they fit.
        graph: whether steps on a GPU are replayed from CUDA graphs; none: where that is measured
            to be faster.
        progress: called after each step (some steps later on a GPU, which is never waited for)
            with epoch, step, steps of the epoch, and the step's losses with `total`.

    Raises:
        UserError: no GPU for `cuda`, no training images, fewer images a step than workers, weights
            or a last.pt of another design or recipe, a full disk.
        TrainingError: a loss that is not finite, in fp16 one that stays so; last.pt stays at the
            epoch before. On a GPU it is noticed some steps later.
    """
    chosen = choose_device(device)
    if not len(train):
        raise UserError(f"{train.name}: no training images; choose other data or hold out fewer")
    place = distributed.place()
    batch_size = min(recipe.batch_size, len(train))
    if place.workers > batch_size:
        raise UserError(
            f"{place.workers} workers: a step has {batch_size} images; use fewer "
            "workers or a larger batch size"
        )
    if workers is None:
        workers = LOADER_THREADS if chosen.type == "cuda" else 0
    path = Path(workdir) / LAST
    training = _start(config, recipe, path, chosen, init)
    last = min(recipe.epochs, until or recipe.epochs)

    if told is not None:
        yield from (Epoch(**entry) for entry in training.history[told:last])
    if len(training.history) >= last:
        return
    feed = Feed(train, recipe, chosen, workers, resident)
    stepper = Stepper(training.model, training.optimizer, config, recipe, training.precision, graph)
    for epoch in range(len(training.history) + 1, last + 1):
        started = time.perf_counter()
        looked = epoch == last or epoch in evaluate_at or _is_due(epoch, recipe)
        with torch.cuda.stream(stepper.stream):  # on a CPU without effect
            steps = _Epoch(epoch, len(train), recipe, last, progress)
            recent = steps.run(training, feed, stepper, place)
            if looked:
                settle_norms(training.result, recent, recipe, training.precision)
            ap = None
            if looked and holdout is not None and place.rank == 0:
                ap = _evaluate(training.result, config, recipe, holdout, chosen, training.precision)
        stepper.join()
        result = Epoch(
            epoch=epoch,
            losses=steps.mean_losses(),
            lr=steps.lr,
            seconds=time.perf_counter() - started,
            ap=ap,
            images=steps.count * batch_size,
        )
        training.history.append(asdict(result))
        if place.rank == 0:
            # All there is to resume from: order and augmentation are functions of seed and epoch.
            checkpoint.save(
                path,
                training.result,
                config,
                recipe,
                metadata=training.history[-1],
                state=training.state(),
            )
        yield result


def _is_due(epoch: int, recipe: Recipe) -> bool:
    every = recipe.evaluation.every
    return bool(every) and epoch % every == 0


class _Epoch:
    """The steps of one epoch, and what came of them."""

    def __init__(
        self, epoch: int, images: int, recipe: Recipe, last: int, progress: Progress | None
    ):
        self.epoch = epoch
        self.count = max(images // recipe.batch_size, 1)
        """Steps."""
        self.lr = 0.0
        """Of the last step begun."""
        self._recipe, self._last, self._progress = recipe, last, progress
        self._sums: dict[str, float] = {}
        self._learnt = 0

    def run(
        self,
        training: _Training,
        feed: Feed,
        stepper: Stepper,
        place: distributed.Place,
    ) -> deque[torch.Tensor]:
        """Take all steps; the last images, for the statistics of normalisation."""
        recipe = self._recipe
        to_train(training.model, recipe)
        recent = deque(maxlen=-(-_norm_images(recipe) // recipe.batch_size) * recipe.accumulate)
        for step, parts in enumerate(feed.epoch(self.epoch, place)):
            self.lr = self._lr_at(step)
            stepper.step(step, parts, self.lr, (self._last - self.epoch + 1) * self.count - step)
            if training.average:
                training.average.update(training.model)
            recent.extend(part.images for part in parts)
            for result in stepper.results():
                self._take(result)
        for result in stepper.flush():
            self._take(result)
        if not self._learnt:
            raise TrainingError(_not_finite(f"any step of epoch {self.epoch}", result, self.lr))
        return recent

    def mean_losses(self) -> dict[str, float]:
        return {name: value / self._learnt for name, value in self._sums.items()}

    def _lr_at(self, step: int) -> float:
        return lr_at((self.epoch - 1) * self.count + step, self.count, self._recipe)

    def _take(self, result: StepResult) -> None:
        finite = all(map(math.isfinite, result.losses.values()))
        exhausted = result.scale is not None and result.scale < 1
        if exhausted or not (finite or result.scale is not None):
            raise TrainingError(
                _not_finite(
                    f"epoch {self.epoch}, step {result.step + 1} of {self.count}",
                    result,
                    self._lr_at(result.step),
                )
            )
        if finite:
            self._learnt += 1
            for name, value in result.losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        if self._progress:
            self._progress(self.epoch, result.step + 1, self.count, result.losses)


def _norm_images(recipe: Recipe) -> int:
    fewest, most = NORM_IMAGES
    return round(min(max(NORM_PIXELS / recipe.size**2, fewest), most))


def choose_device(name: str) -> torch.device:
    """The device that auto, cpu or cuda means here."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: {name!r} is not one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda asked for, but torch sees no GPU; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(kw_only=True)
class _Training:
    """All that a training is between two epochs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    average: WeightAverage | None
    """Of the weights, where the recipe has an ema."""
    start: dict | None = None
    """What it started from, as `detector.weights.initialize` tells it; none: from scratch."""
    history: list[dict] = field(default_factory=list)
    """The epochs so far, as plain data."""

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and saved."""
        return self.average.module if self.average else self.model

    def state(self) -> dict:
        """What a checkpoint keeps to go on from, beside the result's weights."""
        state = {
            "optimizer": optimizer_state(self.optimizer),
            "history": self.history,
            "scaler": self.precision.scaler.state_dict(),
            "start": self.start,
        }
        if self.average:
            state |= {"model": self.model.state_dict(), "averaged": self.average.updates}
        return state

    def go_on_from(self, saved: checkpoint.Checkpoint) -> None:
        self.result.load_state_dict(saved.model)
        if self.average:
            self.model.load_state_dict(saved.state["model"])
            self.average.updates = saved.state["averaged"]
        load_optimizer_state(self.optimizer, saved.state["optimizer"])
        self.precision.scaler.load_state_dict(saved.state.get("scaler", {}))
        self.history, self.start = saved.state["history"], saved.state.get("start")


def _start(
    config: Detector, recipe: Recipe, path: Path, device: torch.device, init: str | None
) -> _Training:
    """A training at its beginning, or where `path` holds it."""
    model = build_detector(config, recipe.seed, recipe.initialization)
    saved, start = checkpoint.load(path) if path.exists() else None, None
    if saved is not None:
        _same(saved, config, recipe, path)
    elif init or recipe.weights:
        from detector.weights.initialize import begin

        start = begin(model, config, init or recipe.weights, path.parent)
    model = model.to(device, memory_format=layout(recipe))
    if recipe.norm == "sync" and device.type == "cuda" and distributed.place().workers > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    decay, precision = recipe.optimizer.ema, Precision(recipe, device)
    training = _Training(
        model=model,
        precision=precision,
        start=start,
        optimizer=make_optimizer(model, recipe.optimizer),
        average=WeightAverage(model, decay) if decay else None,
    )
    if saved is not None:
        training.go_on_from(saved)
    return training


def _same(saved: checkpoint.Checkpoint, config: Detector, recipe: Recipe, path: Path) -> None:
    """UserError where a checkpoint to resume from is of another training."""
    if arch_hash(saved.config) != arch_hash(config):
        raise UserError(
            f"{path}: holds design {arch_hash(saved.config)}, not {arch_hash(config)}; "
            "choose another folder or remove it"
        )
    # In how many parts a step is taken may change: a trial that ran out of memory takes more.
    alike = replace(saved.recipe, accumulate=recipe.accumulate)
    key = _difference(alike.to_dict(), recipe.to_dict())
    if key:
        raise UserError(
            f"{path}: was trained with another recipe ({key}); choose another folder or remove it"
        )


def _difference(old: dict, new: dict, prefix: str = "") -> str | None:
    for key in new:
        if isinstance(new[key], dict):
            found = _difference(old[key], new[key], f"{prefix}{key}.")
            if found:
                return found
        elif old[key] != new[key]:
            return f"{prefix}{key}: {old[key]} there, {new[key]} here"
    return None


def _evaluate(
    model: nn.Module,
    config: Detector,
    recipe: Recipe,
    holdout: ImageSet,
    device: torch.device,
    precision: Precision,
) -> dict[str, float]:
    from detector.inference.predict import evaluate

    model.eval()
    with precision.autocast:
        return evaluate(model, config, holdout, recipe.evaluation, device)


def _not_finite(where: str, result: StepResult, lr: float) -> str:
    told = ", ".join(f"{name} {value:.4g}" for name, value in result.losses.items())
    way = "optimizer.clip_norm" if result.scale is None else "bf16 or fp32"
    return (
        f"loss not finite at {where} ({told}); a lower learning rate than {lr:g} or {way} may help"
    )
