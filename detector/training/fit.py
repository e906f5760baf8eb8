"""The training loop: a generator of epochs, for proxies and full trainings alike."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from detector.base.errors import UserError
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.data.types import ImageSet
from detector.training import distributed
from detector.training.epoch import Epoch, EpochSteps, Progress
from detector.training.feed import Feed
from detector.training.precise_bn import calibrate
from detector.training.state import start_or_resume
from detector.training.step import Precision, check_normalization, load_teacher
from detector.training.stepper import Stepper
from detector.training.teacher import TeacherFile
from detector.weights.file_names import LAST

LOADER_THREADS = min(os.cpu_count() or 1, 16)
"""Threads that prepare batches for a GPU."""


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
    epochs_reported: int | None = None,
    workers: int | None = None,
    init: str | None = None,
    teacher: TeacherFile | None = None,
    graph: bool | None = None,
    resident: bool | None = None,
    progress: Progress | None = None,
) -> Iterator[Epoch]:
    """Trains a detector and yields each epoch after its checkpoint is written.

    Resumes from last.pt in `workdir` if it is there, exactly as if training had never stopped; on a
    CPU two runs with the same number of threads are bitwise equal. `checkpoint.load` reads last.pt;
    last.json beside it is readable. If several workers call this (those of torch's process group),
    they train together on the same batches; worker 0 evaluates, and writes to the shared folder.

    Args:
        train: images to train on, preferably a cache.
        holdout: images for AP; None means no evaluation.
        device: auto (a GPU if there is one), cpu or cuda.
        until: the last epoch of this call, which is evaluated; None means the recipe's last.
        evaluate_at: epochs to evaluate besides those of the recipe.
        epochs_reported: epochs that the caller knows already. Later ones in last.pt are yielded
            first (the caller was killed between a checkpoint and its report). None: all of them.
        workers: threads that prepare batches; None means 0 on a CPU, LOADER_THREADS for a GPU.
        init: pretrained weights in place of the recipe's, as for `detector.weights.initialize`.
        teacher: a detector whose predictions are learned, too, as `recipe.distillation` says.
        graph: whether steps on a GPU are replayed from CUDA graphs; None: if measured to be faster.
        resident: whether the training images reside in the GPU's memory; None: if they fit.
        progress: called after each step (on a GPU, which is never waited for, some steps later).

    Raises:
        UserError: no GPU for `cuda`, no training images, fewer images a step than workers, or too
            few for batch normalisation; weights or a last.pt of another design, recipe or teacher;
            a full disk.
        TrainingError: a loss that is not finite, in fp16 one that stays so; last.pt remains that of
            the epoch before. On a GPU it is detected some steps later.
    """
    torch_device, worker = choose_device(device), distributed.this_worker()
    batch_size = _batch_size(train, recipe, worker)
    check_normalization(config, recipe, batch_size, torch_device)
    path = Path(workdir) / LAST
    state = start_or_resume(
        config, recipe, path, torch_device, init, teacher.record if teacher else None
    )
    last = min(recipe.epochs, until or recipe.epochs)

    if epochs_reported is not None:
        yield from (Epoch(**entry) for entry in state.history[epochs_reported:last])
    if len(state.history) >= last:
        return
    if workers is None:
        workers = LOADER_THREADS if torch_device.type == "cuda" else 0
    feed = Feed(train, recipe, torch_device, workers, resident)
    stepper = Stepper(
        state.model,
        state.optimizer,
        config,
        recipe,
        state.precision,
        graph,
        load_teacher(teacher, config, recipe, torch_device),
    )
    for epoch in range(len(state.history) + 1, last + 1):
        started, ap = time.perf_counter(), None
        steps = EpochSteps(epoch, len(train), recipe, last, progress)
        with torch.cuda.stream(stepper.stream):  # no effect on a CPU
            steps.run(state, feed, stepper, worker)
            if epoch == last or epoch in evaluate_at or _is_evaluated(epoch, recipe):
                model = state.eval_model
                calibrate(model, train, recipe, state.precision, workers)
                if holdout is not None and worker.rank == 0:
                    ap = _evaluate(model, config, recipe, holdout, torch_device, state.precision)
        stepper.join()
        result = Epoch(
            epoch=epoch,
            losses=steps.mean_losses(),
            lr=steps.lr,
            seconds=time.perf_counter() - started,
            ap=ap,
            images=steps.count * batch_size,
        )
        state.history.append(asdict(result))
        if worker.rank == 0:
            state.save(path, config, recipe)
        yield result


def choose_device(name: str) -> torch.device:
    """The device that auto, cpu or cuda means here."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: {name!r} is not one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda asked for, but torch sees no GPU; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _batch_size(train: ImageSet, recipe: Recipe, worker: distributed.Worker) -> int:
    """Images a step; UserError if there are none, or fewer than workers."""
    if not len(train):
        raise UserError(f"{train.name}: no training images; choose other data or hold out fewer")
    batch_size = min(recipe.batch_size, len(train))
    if worker.world_size > batch_size:
        raise UserError(
            f"{worker.world_size} workers: a step has {batch_size} images; use fewer "
            "workers or a larger batch size"
        )
    return batch_size


def _is_evaluated(epoch: int, recipe: Recipe) -> bool:
    every = recipe.evaluation.every
    return bool(every) and epoch % every == 0


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
