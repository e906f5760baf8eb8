"""Batches of augmented images, reproducible by their seed for any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

from detector.config.recipe import Recipe
from detector.data.faces import Faces
from detector.data.prefetch import prefetch_map
from detector.data.random_numbers import random_numbers
from detector.data.targets import Targets
from detector.data.transforms import Transforms, sample
from detector.data.types import ImageSet

Rendered = TypeVar("Rendered")


@dataclass(frozen=True, eq=False)
class Batch:
    images: torch.Tensor
    """uint8 [B, 3, S, S], BGR, channels-last in memory."""
    targets: list[dict[str, torch.Tensor]] | Targets
    """For each image: boxes float32 [N, 4] xyxy px, landmarks float32 [N, 5, 2] px (NaN where
    unknown), ignore bool [N]; N may be 0. Or the same as `Targets`."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in px."""
        height, width = self.images.shape[2:]
        return height, width

    @property
    def faces(self) -> Targets:
        return Targets.of(self.targets)

    def parts(self, count: int) -> list[Batch]:
        """The same images in at most `count` batches of nearly equal size."""
        return [
            Batch(self.images[a:b], self.targets[a:b])
            for a, b in even_parts(len(self.images), count)
        ]

    def to(self, device: torch.device, memory_format: torch.memory_format) -> Batch:
        """The batch on a device, its faces as `Targets`; on a GPU padded (`Targets.padded`)."""
        faces = self.faces.padded() if device.type == "cuda" else self.faces
        return Batch(
            self.images.to(device, non_blocking=True, memory_format=memory_format),
            faces.to(device),
        )


def even_parts(size: int, count: int) -> list[tuple[int, int]]:
    """Start and stop of at most `count` parts of `size` images, of nearly equal size."""
    return [(a, b) for a, b in pairwise(size * i // count for i in range(count + 1)) if a < b]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The random draws of a batch, made before its pixels are read."""

    indices: np.ndarray
    """int64 [B], of the images in their set."""
    transforms: Transforms
    targets: Targets
    decoded: list[np.ndarray] | None
    """The images, if they had to be decoded to know their sizes."""

    def parts(self, count: int) -> list[BatchPlan]:
        """As `Batch.parts`."""
        return [
            BatchPlan(
                self.indices[a:b],
                self.transforms[a:b],
                self.targets[a:b],
                self.decoded and self.decoded[a:b],
            )
            for a, b in even_parts(len(self.indices), count)
        ]

    def crop(self, images: ImageSet, out: np.ndarray, *, finish: bool) -> None:
        """Writes the crop of each image to `out` (uint8 [B, S, S, 3]).

        Args:
            finish: change its colours and flip it, too.
        """
        for number, (pixels, index) in enumerate(zip(out, self.indices.tolist())):
            image = images.image(index) if self.decoded is None else self.decoded[number]
            if finish:
                self.transforms.render(number, image, pixels)
            else:
                self.transforms.crop(number, image, pixels)


def batches(
    images: ImageSet,
    recipe: Recipe,
    *,
    epoch: int,
    seed: int,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """One epoch of training batches, in the CPU's memory; see `map_batches`."""

    def render(plan: BatchPlan) -> Batch:
        pixels = np.empty((len(plan.indices), recipe.size, recipe.size, 3), np.uint8)
        plan.crop(images, pixels, finish=True)
        return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), plan.targets.by_image())

    return map_batches(images, recipe, render, epoch=epoch, seed=seed, workers=workers, shard=shard)


def map_batches(
    images: ImageSet,
    recipe: Recipe,
    render: Callable[[BatchPlan], Rendered],
    *,
    epoch: int,
    seed: int,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Rendered]:
    """`render` applied to each batch of one epoch.

    The order depends on (seed, epoch), each image's augmentation on (seed, epoch, index) alone.
    A last batch that is not full is dropped unless it is the only one.

    Args:
        images: preferably a cache (`cache_images`): every image is read once an epoch.
        render: called in the threads.
        shard: (k, n) takes every n-th image of each batch, from the k-th on; the n shards together
            are the batch that (0, 1) gives.
        workers: threads that prepare batches ahead; 0 prepares each when it is requested.
    """
    if not len(images):
        return
    order = np.random.default_rng((seed, epoch)).permutation(len(images))
    count = max(len(images) // recipe.batch_size, 1)
    start, step = shard
    chunks = [
        order[i * recipe.batch_size : (i + 1) * recipe.batch_size][start::step]
        for i in range(count)
    ]
    uniforms = random_numbers(
        len(images),
        np.random.default_rng((seed, epoch, 1)),
        np.random.default_rng((seed, epoch, 2)),
    )
    labels = _Labels(images, recipe.augmentation.ignore_invalid)

    def make(chunk: np.ndarray) -> Rendered:
        return render(_plan(labels, chunk, recipe, uniforms[chunk]))

    yield from prefetch_map(make, chunks, workers, ahead=workers)


class _Labels:
    """The labels of all images.

    Args:
        ignore_invalid: as `Augmentation.ignore_invalid`. Faces without area are always ignored.
    """

    def __init__(self, images: ImageSet, ignore_invalid: bool):
        self.images = images
        labels = images.labels
        self.sizes = np.array([label.size for label in labels], np.int64)
        """[N, 2]: width and height of the original images, the px of the boxes; 0 if unknown."""
        shapes = getattr(images, "shapes", None)  # known to a cache without reading pixels
        self.stored = None if shapes is None else np.array(shapes, np.int64)[:, ::-1]
        """[N, 2]: width and height of the stored images; None if unknown."""
        self._boxes = [label.boxes for label in labels]
        self._landmarks = [label.landmarks for label in labels]
        self._ignore = [
            label.ignore & (ignore_invalid | (label.boxes[:, 2:] <= label.boxes[:, :2]).any(axis=1))
            for label in labels
        ]

    def faces(self, indices: list[int]) -> Faces:
        """The faces of some images, in px of their labels."""
        counts = [len(self._boxes[index]) for index in indices]
        return Faces(
            np.concatenate([self._boxes[index] for index in indices]),
            np.concatenate([self._landmarks[index] for index in indices]),
            np.concatenate([self._ignore[index] for index in indices]),
            np.arange(len(indices)).repeat(counts),
        )


def _plan(labels: _Labels, chunk: np.ndarray, recipe: Recipe, uniforms: np.ndarray) -> BatchPlan:
    indices = chunk.tolist()
    decoded = None
    if labels.stored is None:
        decoded = [labels.images.image(index) for index in indices]
        sizes = np.array([image.shape[1::-1] for image in decoded])
    else:
        sizes = labels.stored[chunk]
    faces = labels.faces(indices)
    labelled = np.where(labels.sizes[chunk] > 0, labels.sizes[chunk], sizes)
    if (labelled != sizes).any():  # the cache scaled them down
        faces = faces.moved((sizes / labelled)[faces.image], np.zeros(2))
    transforms = sample(sizes, faces, recipe.augmentation, uniforms)
    faces = transforms.faces(faces, recipe.size)
    targets = Targets(
        torch.from_numpy(faces.boxes),
        torch.from_numpy(faces.landmarks),
        torch.from_numpy(faces.ignore),
        torch.from_numpy(faces.image),
        len(indices),
    )
    return BatchPlan(chunk, transforms, targets, decoded)
