"""Precise BN: statistics of batch normalisation for the images that will be evaluated.

Running averages lag the weights by some tens of steps, more than an epoch of a proxy, and belong to
the augmented crops of training: enlarged, recoloured, with other faces than a photograph. So before
an evaluation the statistics are recomputed with the weights as they are (Wu & Johnson 2021,
"Rethinking 'Batch' in BatchNorm"), over training images that look as the evaluated ones do. The
images are always the same, so that two looks differ by their weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from detector.config.recipe import Recipe
from detector.data.loader import batches
from detector.data.types import ImageSet
from detector.inference.tta import input_size
from detector.training import distributed
from detector.training.step import BatchNorm, Precision, batchnorms, memory_format

IMAGES = 128
"""Training images that the statistics come from."""
SEED = 0
"""Chooses those images, for all trainings alike."""
MAX_SIDE = 1600
"""px; images that are evaluated larger are scaled down. RetinaFace's own test has 1600."""
MAX_PIXELS = 2**24
"""Most pixels that pass through the network at once, unless a training step has more."""


def calibrate(
    model: nn.Module,
    train: ImageSet,
    recipe: Recipe,
    precision: Precision,
    threads: int = 0,
) -> None:
    """`recalibrate_batchnorm` on `evaluation_images` of all workers together.

    Args:
        threads: that prepare the images ahead.
    """
    recalibrate_batchnorm(model, evaluation_images(train, recipe, threads), recipe, precision)


def evaluation_images(train: ImageSet, recipe: Recipe, threads: int = 0) -> Iterator[Tensor]:
    """Training images as they would be evaluated, but for being cut to squares of one size.

    Yields:
        uint8 [B, 3, S, S]: the squares over the whole short side of IMAGES images (of this
        worker's share), with S about the short side that images have in the evaluation.
    """
    side, shard = evaluation_side(train, recipe), distributed.this_worker()
    batch_size, parts = batching(recipe, min(recipe.batch_size, IMAGES, len(train)), side)
    plain = replace(
        recipe,
        size=side,
        batch_size=batch_size,
        augmentation=replace(
            recipe.augmentation, scales=(1.0,), photometric=0.0, permute_channels=0.0
        ),
    )
    count = -(-IMAGES // batch_size)
    for number, batch in enumerate(
        batches(train, plain, epoch=0, seed=SEED, workers=threads, shard=shard), 1
    ):
        for part in batch.parts(parts):
            yield part.images
        if number == count:
            return


def batching(recipe: Recipe, batch_size: int, side: int) -> tuple[int, int]:
    """Images of a batch of all workers together, and the parts that each worker divides its share
    into: those of a training step, if their squares of `side` px are not too many (MAX_PIXELS).

    Args:
        batch_size: that a training step would have.
    """
    world_size = distributed.this_worker().world_size
    images = -(-batch_size // (recipe.accumulate * world_size))  # that pass through at once
    most = max(MAX_PIXELS, images * recipe.size**2) // side**2
    if images <= most:
        return batch_size, recipe.accumulate
    return images // -(-images // most) * world_size, 1


def evaluation_side(train: ImageSet, recipe: Recipe) -> int:
    """The median short side in px that the images have in the recipe's evaluation, rounded to a
    multiple of 32 and at most MAX_SIDE, but at least the size of the training crops: a full
    training is watched at a small size, and finally evaluated at the original one."""
    sizes = [label.size for label in train.labels if label.size[0] > 0]
    if not sizes:
        return recipe.size
    short = np.median([min(input_size(size, recipe.evaluation)) for size in sizes])
    return max(recipe.size, min(round(float(short) / 32) * 32, MAX_SIDE))


@torch.no_grad()
def recalibrate_batchnorm(
    model: nn.Module, images: Iterable[Tensor], recipe: Recipe, precision: Precision
) -> None:
    """Recomputes batch normalisation's running statistics with the current weights, as the mean of
    those of the batches, weighted by their images. Training itself never reads them. The statistics
    of several workers are averaged; frozen batch normalisation keeps its own.

    Args:
        images: batches uint8 [B, 3, H, W] to compute the statistics from.
    """
    if recipe.norm == "frozen":
        return
    norms = batchnorms(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    model.train()
    device = next(model.parameters()).device
    total = 0
    for batch in images:
        total += len(batch)
        for norm in norms:
            # A cumulative average; torch's own (momentum None) reads a counter from the GPU.
            norm.momentum = len(batch) / total
        with precision.autocast:
            model(batch.to(device, memory_format=memory_format(recipe)))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    _average_over_workers(norms)


def _average_over_workers(norms: list[BatchNorm]) -> None:
    world_size = distributed.this_worker().world_size
    if world_size > 1:
        for norm in norms:
            for statistics in (norm.running_mean, norm.running_var):
                if statistics is not None:
                    distributed.all_reduce_sum(statistics).div_(world_size)
