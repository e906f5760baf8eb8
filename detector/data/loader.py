"""Batches of augmented images, the same for the same seed whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

from detector.config.recipe import Recipe
from detector.data.ahead import in_order
from detector.data.targets import Targets
from detector.data.transforms import NUMBERS, Faces, Transforms, crop_image, sample
from detector.data.types import ImageSet

Rendered = TypeVar("Rendered")


@dataclass(frozen=True, eq=False)
class Batch:
    images: torch.Tensor
    """uint8 [B, 3, S, S], BGR, channels-last in memory."""
    targets: list[dict[str, torch.Tensor]] | Targets
    """For each image: boxes float32 [N, 4] xyxy px, landmarks float32 [N, 5, 2] px (NaN where
    unknown), ignore bool [N]; N may be 0. Or all of them in one piece."""

    @property
    def faces(self) -> Targets:
        return Targets.of(self.targets)

    def parts(self, count: int) -> list[Batch]:
        """The same images in at most `count` batches, as even as can be."""
        return [
            Batch(self.images[a:b], self.targets[a:b]) for a, b in edges(len(self.images), count)
        ]

    def to(self, device: torch.device, layout: torch.memory_format) -> Batch:
        """The same on a device, its faces in one piece; on a GPU padded (`Targets.padded`)."""
        faces = self.faces.padded() if device.type == "cuda" else self.faces
        return Batch(
            self.images.to(device, non_blocking=True, memory_format=layout), faces.to(device)
        )


def edges(size: int, count: int) -> list[tuple[int, int]]:
    """Where `size` images are cut into at most `count` parts, as even as can be."""
    return [(a, b) for a, b in pairwise(size * i // count for i in range(count + 1)) if a < b]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a batch will show, before any pixel is read (but for its size where that is unknown)."""

    indices: np.ndarray
    """int64 [B], of the images in their set."""
    transforms: Transforms
    targets: Targets
    decoded: list[np.ndarray] | None
    """The images, where they had to be decoded for their sizes."""

    def parts(self, count: int) -> list[Plan]:
        """As those of `Batch`."""
        return [
            Plan(
                self.indices[a:b],
                self.transforms[a:b],
                self.targets[a:b],
                self.decoded and self.decoded[a:b],
            )
            for a, b in edges(len(self.indices), count)
        ]

    def crop(self, images: ImageSet, out: np.ndarray, *, finish: bool) -> None:
        """Writes what is seen of each image to `out` (uint8 [B, S, S, 3]); without `finish` before
        its colours are changed and it is flipped."""
        for number, (pixels, index) in enumerate(zip(out, self.indices.tolist())):
            image = images.image(index) if self.decoded is None else self.decoded[number]
            if finish:
                self.transforms.render(number, image, pixels)
            else:
                crop_image(image, self.transforms.windows[number], pixels)


def batches(
    images: ImageSet,
    recipe: Recipe,
    *,
    epoch: int,
    seed: int,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """One epoch of training batches, in memory; see `rendered`."""

    def render(plan: Plan) -> Batch:
        pixels = np.empty((len(plan.indices), recipe.size, recipe.size, 3), np.uint8)
        plan.crop(images, pixels, finish=True)
        return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), plan.targets.by_image())

    return rendered(images, recipe, render, epoch=epoch, seed=seed, workers=workers, share=share)


def rendered(
    images: ImageSet,
    recipe: Recipe,
    render: Callable[[Plan], Rendered],
    *,
    epoch: int,
    seed: int,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Rendered]:
    """What `render` makes of each batch of one epoch.

    The order depends on (seed, epoch), each image's augmentation on (seed, epoch, index) alone.
    A last batch that is not full is left out unless it is the only one.

    Args:
        images: best a cache (`cache_images`): every image is read once an epoch.
        render: called in the threads.
        share: (k, n): of each batch every n-th image from the k-th on; the n shares together are
            the batch that (0, 1) gives.
        workers: threads that prepare batches ahead; 0 prepares each when it is asked for.
    """
    if not len(images):
        return
    order = np.random.default_rng((seed, epoch)).permutation(len(images))
    count = max(len(images) // recipe.batch_size, 1)
    start, step = share
    chunks = [
        order[i * recipe.batch_size : (i + 1) * recipe.batch_size][start::step]
        for i in range(count)
    ]
    numbers = np.random.default_rng((seed, epoch, 1)).random((len(images), NUMBERS))
    labels = _Labels(images)

    def make(chunk: np.ndarray) -> Rendered:
        return render(_plan(labels, chunk, recipe, numbers[chunk]))

    yield from in_order(make, chunks, workers, ahead=workers)


class _Labels:
    """The faces of all images in one piece."""

    def __init__(self, images: ImageSet):
        self.images = images
        labels = images.labels
        self.sizes = np.array([label.size for label in labels], np.int64)
        """[N, 2]: width and height that the boxes are in; 0 where unknown."""
        shapes = getattr(images, "shapes", None)  # a cache knows them without touching its pixels
        self.stored = None if shapes is None else np.array(shapes, np.int64)[:, ::-1]
        """[N, 2]: width and height of the stored images."""
        self._boxes = [label.boxes for label in labels]
        self._landmarks = [label.landmarks for label in labels]
        self._ignore = [label.ignore for label in labels]

    def faces(self, indices: list[int]) -> Faces:
        """The faces of some images, in px of their labels."""
        counts = [len(self._boxes[index]) for index in indices]
        return Faces(
            np.concatenate([self._boxes[index] for index in indices]),
            np.concatenate([self._landmarks[index] for index in indices]),
            np.concatenate([self._ignore[index] for index in indices]),
            np.arange(len(indices)).repeat(counts),
        )


def _plan(labels: _Labels, chunk: np.ndarray, recipe: Recipe, numbers: np.ndarray) -> Plan:
    indices = chunk.tolist()
    decoded = None
    if labels.stored is None:
        decoded = [labels.images.image(index) for index in indices]
        sizes = np.array([image.shape[1::-1] for image in decoded])
    else:
        sizes = labels.stored[chunk]
    faces = labels.faces(indices)
    told = np.where(labels.sizes[chunk] > 0, labels.sizes[chunk], sizes)
    if (told != sizes).any():  # the cache scaled them down
        faces = faces.moved((sizes / told)[faces.image], np.zeros(2))
    transforms = sample(sizes, faces, recipe.augmentation, numbers)
    faces = transforms.faces(faces, recipe.size, recipe.augmentation.min_face)
    targets = Targets(
        *map(torch.from_numpy, (faces.boxes, faces.landmarks, faces.ignore, faces.image)),
        len(indices),
    )
    return Plan(chunk, transforms, targets, decoded)
