"""Chooses the batch size for a device: the smallest that keeps it busy."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from detector.base.errors import UserError, out_of_memory
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.data.loader import Batch
from detector.network.model import build_detector
from detector.training.optim import make_optimizer
from detector.training.step import (
    Precision,
    check_normalization,
    load_teacher,
    memory_format,
    set_train_mode,
)
from detector.training.stepper import MIN_STEPS_FOR_GRAPHS, TIMED_STEPS, WARMUP_STEPS, Stepper
from detector.training.teacher import TeacherFile

MAX_BATCH_SIZE = 256
"""Larger batches need a learning rate schedule of their own."""
MIN_STEPS = 16
"""Least number of steps an epoch."""
GOOD_RATE = 0.9
"""Share of the best rate that is good enough: of two such sizes, the smaller one learns better in
the same number of epochs."""
UNTIMED = WARMUP_STEPS + 2 * TIMED_STEPS + 1
"""Steps after which the stepper has chosen between eager and graph."""
TIMED = 10
LEARNING_RATE = 1e-6
"""So small that nothing is learned and nothing overflows."""
FACES = 12
"""Faces of each random image, as in WIDER FACE."""

logger = logging.getLogger(__name__)

StepTimer = Callable[[Detector, Recipe, torch.device], float]
"""Seconds of one training step of a detector with the recipe's batch size."""


def sizes_to_try(batch_size: int, images: int) -> list[int]:
    """A recipe's batch size and its doublings, for this number of training images."""
    sizes = [batch_size]
    while 2 * sizes[-1] <= min(MAX_BATCH_SIZE, images // MIN_STEPS):
        sizes.append(2 * sizes[-1])
    return sizes


def time_step(
    config: Detector,
    recipe: Recipe,
    device: torch.device,
    graph: bool | None = None,
    teacher: TeacherFile | None = None,
) -> float:
    """Seconds of a step on random images: forward pass, backward pass and optimiser, eager or
    replayed from a CUDA graph as in training.

    Batches are on the device beforehand, as training prefetches them.

    Args:
        graph: as for `Stepper`.
        teacher: as for `fit`.
    """
    check_normalization(config, recipe, recipe.batch_size, device)
    precision = Precision(recipe, device)
    model = build_detector(config)
    # torch's stubs lack this overload
    model = model.to(device, memory_format=memory_format(recipe))  # type: ignore[call-overload]
    set_train_mode(model, recipe)
    stepper = Stepper(
        model,
        make_optimizer(model, recipe.optimizer),
        config,
        recipe,
        precision,
        graph,
        load_teacher(teacher, config, recipe, device),
    )
    parts = [
        part.to(device, memory_format(recipe))
        for part in _random_batch(recipe.batch_size, recipe.size).parts(recipe.accumulate)
    ]
    _synchronize(device)
    with torch.cuda.stream(stepper.stream):  # on a CPU without effect
        for step in range(UNTIMED + TIMED):
            if step == UNTIMED:
                _synchronize(device)
                started = time.perf_counter()
            stepper.step(step, parts, LEARNING_RATE, remaining=MIN_STEPS_FOR_GRAPHS)
            stepper.results()
        _synchronize(device)
    return (time.perf_counter() - started) / TIMED


def choose_batch_size(
    config: Detector,
    recipe: Recipe,
    device: torch.device,
    sizes: Iterable[int],
    step: StepTimer = time_step,
    report: Callable[[str], None] = logger.info,
) -> int:
    """The smallest batch size with nearly the best rate (images/s) of all `sizes`; on a CPU, which
    every size keeps busy, the recipe's.

    Sizes are tried in ascending order, up to the first that does not fit in the device's memory.

    Args:
        step: times a step.
        report: receives one line with the choice and the rates.

    Raises:
        UserError: not even the smallest size fits.
    """
    if device.type == "cpu":
        report(f"batch size: {recipe.batch_size}, the recipe's own, as on any CPU")
        return recipe.batch_size
    rates: dict[int, float] = {}
    too_large = None
    for size in sorted(sizes):
        try:
            rates[size] = size / step(config, replace(recipe, batch_size=size), device)
        except Exception as error:
            if not out_of_memory(error):
                raise
            too_large = size
        _free(device)  # outside the handler: the traceback holds tensors
        if too_large:
            break
    if not rates:
        raise UserError(
            f"--batch-size auto: not even {too_large} images a step fit in the memory "
            "of the device; give --batch-size N, or --accumulate K to take them in "
            "parts"
        )
    chosen = min(size for size, rate in rates.items() if rate >= GOOD_RATE * max(rates.values()))
    shown = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    report(
        f"batch size: {chosen}, chosen by images/s ({shown}"
        + (f"; {too_large} does not fit in memory)" if too_large else ")")
    )
    return chosen


def _random_batch(images: int, size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, size, size, 3), dtype=torch.uint8, generator=generator)
    return Batch(pixels.permute(0, 3, 1, 2), [_faces(size, generator) for _ in range(images)])


def _faces(size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Targets of one image; most faces are small."""
    side = 6 + size * 0.3 * torch.rand(FACES, 1, generator=generator) ** 3
    corner = torch.rand(FACES, 2, generator=generator) * (size - side)
    points = torch.rand(FACES, 5, 2, generator=generator) * side[:, None] + corner[:, None]
    return {
        "boxes": torch.cat((corner, corner + side), 1),
        "landmarks": points,
        "ignore": torch.zeros(FACES, dtype=torch.bool),
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
