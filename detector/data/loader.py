"""Batches of augmented images, the same for the same seed whatever the number of workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from detector.data.transforms import Faces, augment
from detector.data.types import ImageSet
from detector.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Batch:
    images: torch.Tensor
    """uint8 [B, 3, S, S], BGR, channels-last in memory."""
    targets: list[dict[str, torch.Tensor]]
    """For each image: boxes float32 [N, 4] xyxy px, landmarks float32 [N, 5, 2] px (NaN where
    unknown), ignore bool [N]; N may be 0."""

    def parts(self, count: int) -> list[Batch]:
        """The same images in at most `count` batches, as even as can be."""
        size = len(self.targets)
        edges = [size * i // count for i in range(count + 1)]
        return [Batch(self.images[a:b], self.targets[a:b]) for a, b in pairwise(edges) if a < b]

    def to(self, device: torch.device, layout: torch.memory_format) -> Batch:
        return Batch(
            self.images.to(device, non_blocking=True, memory_format=layout),
            [{key: value.to(device, non_blocking=True) for key, value in target.items()}
             for target in self.targets])


def batches(images: ImageSet, recipe: Recipe, *, epoch: int, seed: int,
            workers: int = 0, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """One epoch of training batches.

    The order depends on (seed, epoch), each image's augmentation on (seed, epoch, index) alone.
    A last batch that is not full is left out unless it is the only one.

    Args:
        images: best a cache (`cache_images`): every image is read once an epoch.
        share: (k, n): of each batch every n-th image from the k-th on; the n shares together are
            the batch that (0, 1) gives.
        workers: threads that prepare batches ahead (OpenCV works outside Python's lock);
            0 prepares each when it is asked for.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(images))
    count = max(len(images) // recipe.batch_size, 1 if len(images) else 0)
    start, step = share
    chunks = [order[i * recipe.batch_size:(i + 1) * recipe.batch_size][start::step]
              for i in range(count)]

    def make(chunk: np.ndarray) -> Batch:
        return _batch(images, chunk.tolist(), recipe, (seed, epoch))

    if not workers:
        yield from map(make, chunks)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque = deque()
        try:
            for chunk in chunks:
                ahead.append(pool.submit(make, chunk))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:  # where the caller stops early
            for future in ahead:
                future.cancel()


def _batch(images: ImageSet, indices: list[int], recipe: Recipe, seed: tuple[int, int]) -> Batch:
    pixels = np.empty((len(indices), recipe.size, recipe.size, 3), np.uint8)
    targets = []
    for out, index in zip(pixels, indices):
        rng = np.random.default_rng((*seed, index))
        image, label = images.image(index), images.labels[index]
        faces = Faces(label.boxes, label.landmarks, label.ignore)
        if label.size[0] and label.size != image.shape[1::-1]:  # the cache scaled it down
            faces = faces.moved(np.array(image.shape[1::-1]) / label.size, np.zeros(2))
        result, faces = augment(image, faces, recipe.size, recipe.augmentation, rng, out)
        if result is not out:
            out[:] = result
        targets.append({"boxes": torch.from_numpy(faces.boxes),
                        "landmarks": torch.from_numpy(faces.landmarks),
                        "ignore": torch.from_numpy(faces.ignore)})
    return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), targets)
