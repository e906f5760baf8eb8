"""How many images a step should have on a device: the fewest that keep it busy."""

from __future__ import annotations

import gc
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
from detector.training.step import Precision, layout, to_train
from detector.training.stepper import TIMED, WARM_UP, WORTH_IT, Stepper

LARGEST = 256
"""Images a step, at most: more of them take a schedule of their own."""
LEAST_STEPS = 16
"""Steps that an epoch keeps at least."""
ENOUGH = 0.9
"""Share of the best rate that is worth as much: of two such sizes, the smaller one learns better
in the same number of epochs."""
SETTLING = WARM_UP + 2 * TIMED + 1
"""Untimed steps, in which the stepper finds out how it takes them."""
STEPS = 10
RATE = 1e-6
"""The learning rate: nothing is learnt, so nothing overflows."""
FACES = 12
"""Of each image of noise, as in WIDER FACE."""

StepTimer = Callable[[Detector, Recipe, torch.device], float]
"""Seconds of one training step of a detector with the recipe's images a step."""


def sizes_to_try(own: int, images: int) -> list[int]:
    """A recipe's own images a step and its doublings, for so many training images."""
    sizes = [own]
    while 2 * sizes[-1] <= min(LARGEST, images // LEAST_STEPS):
        sizes.append(2 * sizes[-1])
    return sizes


def time_step(
    config: Detector, recipe: Recipe, device: torch.device, graph: bool | None = None
) -> float:
    """Seconds of a step on noise: forward and backward passes and the optimiser, one by one or
    replayed from a graph as training itself does it.

    Batches are on the device before: training makes and moves them while the one before is learnt.

    Args:
        graph: as for `Stepper`.
    """
    precision = Precision(recipe, device)
    model = build_detector(config).to(device, memory_format=layout(recipe))
    to_train(model, recipe)
    stepper = Stepper(
        model, make_optimizer(model, recipe.optimizer), config, recipe, precision, graph
    )
    parts = [
        part.to(device, layout(recipe))
        for part in _noise(recipe.batch_size, recipe.size).parts(recipe.accumulate)
    ]
    _wait(device)
    with torch.cuda.stream(stepper.stream):  # on a CPU without effect
        for step in range(SETTLING + STEPS):
            if step == SETTLING:
                _wait(device)
                started = time.perf_counter()
            stepper.step(step, parts, RATE, to_go=WORTH_IT)
            stepper.results()
        _wait(device)
    return (time.perf_counter() - started) / STEPS


def choose_batch_size(
    config: Detector,
    recipe: Recipe,
    device: torch.device,
    sizes: Iterable[int],
    step: StepTimer = time_step,
    tell: Callable[[str], None] = print,
) -> int:
    """The fewest images a step whose rate is nearly the best of all `sizes`; on a CPU, which no
    step is too small for, the recipe's own.

    Sizes are tried in ascending order, to the first that does not fit in the device's memory.

    Args:
        tell: takes one line with the choice and the rates.

    Raises:
        UserError: not even the smallest fits.
    """
    if device.type == "cpu":
        tell(f"batch size: {recipe.batch_size}, the recipe's own, as on any CPU")
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
        _free(device)  # not before the fault has let go of its tensors
        if too_large:
            break
    if not rates:
        raise UserError(
            f"--batch-size auto: not even {too_large} images a step fit in the memory "
            "of the device; give --batch-size N, or --accumulate K to take them in "
            "parts"
        )
    chosen = min(size for size, rate in rates.items() if rate >= ENOUGH * max(rates.values()))
    told = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    tell(
        f"batch size: {chosen}, chosen by images/s ({told}"
        + (f"; {too_large} does not fit in memory)" if too_large else ")")
    )
    return chosen


def _noise(images: int, size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, size, size, 3), dtype=torch.uint8, generator=generator)
    return Batch(pixels.permute(0, 3, 1, 2), [_faces(size, generator) for _ in range(images)])


def _faces(size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Targets of one image; most of the faces are small."""
    side = 6 + size * 0.3 * torch.rand(FACES, 1, generator=generator) ** 3
    corner = torch.rand(FACES, 2, generator=generator) * (size - side)
    points = torch.rand(FACES, 5, 2, generator=generator) * side[:, None] + corner[:, None]
    return {
        "boxes": torch.cat((corner, corner + side), 1),
        "landmarks": points,
        "ignore": torch.zeros(FACES, dtype=torch.bool),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
