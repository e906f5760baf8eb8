"""Training batches on the device, prefetched.

For a CPU, threads prepare them, or they are prepared when they are requested. For a GPU there are
two ways. If all images fit into a share of its memory they reside there, and one kernel renders the
crops (`gpu_crop`): the CPU only draws the random numbers of the augmentation. Otherwise, and with
random interpolation, which that kernel lacks, threads decode, crop and resize into pinned memory,
and the GPU changes colours and flips. Either way the next batches are copied and rendered on a
separate CUDA stream during the current step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor

from detector.config.recipe import Recipe
from detector.data.cache import CachedImages
from detector.data.loader import Batch, BatchPlan, batches, map_batches
from detector.data.targets import Targets
from detector.data.types import ImageSet
from detector.gpu.kernels import kernels_run
from detector.training.step import memory_format

RESIDENT_SHARE = 1 / 3
"""Share of a GPU's free memory that the training images may take."""
PREFETCH = 2
"""Batches on the GPU besides the current one."""

Pinned = tuple[list[Tensor], Targets, int]
"""Tensors of a part of a batch in pinned memory, its faces, and the taps for `gpu_crop.render`."""


class Feed:
    """The training batches of one device, epoch by epoch.

    Args:
        images: preferably a cache, which can be copied to the GPU as a whole.
        workers: threads that prepare batches ahead; 0 prepares them when they are requested, for
            CPUs only.
        resident: whether the images reside in the GPU's memory, which needs a cache and a recipe
            that `renders_on_gpu`; None: if they can.
    """

    def __init__(
        self,
        images: ImageSet,
        recipe: Recipe,
        device: torch.device,
        workers: int,
        resident: bool | None = None,
    ):
        self._images, self._recipe, self._device, self._workers = images, recipe, device, workers
        if resident is None:
            resident = device.type == "cuda" and renders_on_gpu(recipe) and fits(images, device)
        assert not resident or renders_on_gpu(recipe), "the GPU cannot render this recipe's crops"
        self._source: _ResidentImages | _HostImages
        if resident:
            self._source = _ResidentImages(cast(CachedImages, images), recipe, device)
        else:
            self._source = _HostImages(images, recipe.size)

    @property
    def resident(self) -> bool:
        """Whether the images reside in the GPU's memory."""
        return isinstance(self._source, _ResidentImages)

    def epoch(self, epoch: int, shard: tuple[int, int] = (0, 1)) -> Iterator[list[Batch]]:
        """The batch of each step on the device, in `recipe.accumulate` parts.

        Args:
            shard: as for `loader.map_batches`, which defines the batches.
        """
        recipe, device, source = self._recipe, self._device, self._source
        if device.type != "cuda":
            for batch in batches(
                self._images,
                recipe,
                epoch=epoch,
                seed=recipe.seed,
                workers=self._workers,
                shard=shard,
            ):
                yield [
                    part.to(device, memory_format(recipe))
                    for part in batch.parts(recipe.accumulate)
                ]
            return

        def prepare(plan: BatchPlan) -> list[Pinned]:
            return [source.pin(part) for part in plan.parts(recipe.accumulate)]

        def move(parts: list[Pinned]) -> list[Batch]:
            moved = []
            for tensors, faces, taps in parts:
                on_gpu = [tensor.to(device, non_blocking=True) for tensor in tensors]
                images = source.render(on_gpu, taps)
                images = images.contiguous(memory_format=memory_format(recipe))
                moved.append(Batch(images, faces.to(device)))
            return moved

        pinned = map_batches(
            self._images,
            recipe,
            prepare,
            epoch=epoch,
            seed=recipe.seed,
            workers=max(self._workers, 1),
            shard=shard,
        )
        yield from _prefetch(pinned, move)


class _ResidentImages:
    """Images in the GPU's memory, cropped and augmented there."""

    def __init__(self, images: CachedImages, recipe: Recipe, device: torch.device):
        self._size, self._padding = recipe.size, recipe.augmentation.padding
        self._starts = images.starts
        self._shapes = np.array(images.shapes)
        images.check_all()
        self._pixels = _to_gpu(images.pixels, device)

    def pin(self, plan: BatchPlan) -> Pinned:
        transforms = plan.transforms
        starts = torch.from_numpy(self._starts[plan.indices])
        crops = torch.from_numpy(
            np.column_stack(
                [self._shapes[plan.indices], transforms.windows, transforms.flips]
            ).astype(np.int32)
        )
        side = int(transforms.windows[:, 2].max())
        taps = 2 if side <= self._size else -(-side // self._size) + 1
        return _pinned([starts, crops, colors(plan)], plan, taps)

    def render(self, tensors: list[Tensor], taps: int) -> Tensor:
        from detector.data.gpu_crop import render

        starts, crops, color_maps = tensors
        return render(self._pixels, starts, crops, color_maps, self._size, taps, self._padding)


class _HostImages:
    """Images in the CPU's memory or on disk, cropped by the CPU and finished on the GPU."""

    def __init__(self, images: ImageSet, size: int):
        self._images, self._size = images, size

    def pin(self, plan: BatchPlan) -> Pinned:
        shape = len(plan.indices), self._size, self._size, 3
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        plan.crop(self._images, pixels.numpy(), finish=False)
        return _pinned([pixels, torch.from_numpy(plan.transforms.flips), colors(plan)], plan, 0)

    def render(self, tensors: list[Tensor], taps: int) -> Tensor:
        pixels, flips, color_maps = tensors
        return recolor_and_flip(pixels.permute(0, 3, 1, 2), flips, color_maps)


def renders_on_gpu(recipe: Recipe) -> bool:
    """Whether `gpu_crop` has the recipe's interpolation."""
    return recipe.augmentation.interpolation == "area_linear"


def fits(images: ImageSet, device: torch.device) -> bool:
    """Whether the images fit into the GPU's memory and can be rendered there."""
    size = getattr(images, "nbytes", None)
    if not size or not kernels_run():
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return size <= RESIDENT_SHARE * free


def colors(plan: BatchPlan) -> Tensor:
    """float32 [B, 3, 4]: the colour map of each image; see `transforms.Transforms`."""
    return torch.from_numpy(plan.transforms.colors.astype(np.float32))


def recolor_and_flip(images: Tensor, flips: Tensor, color_maps: Tensor) -> Tensor:
    """Changes colours and flips images horizontally.

    Args:
        images: uint8 [B, 3, H, W], channels-last in memory, as is the result.
        flips: bool [B].
        color_maps: float32 [B, 3, 4], see `transforms.Transforms`.
    """
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2).float()  # [B, HW, 3]
    mapped = torch.baddbmm(color_maps[:, None, :, 3], pixels, color_maps[:, :, :3].mT)
    mapped = mapped.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
    mapped = mapped.view(len(images), *images.shape[2:], 3)
    return torch.where(flips[:, None, None, None], mapped.flip(2), mapped).permute(0, 3, 1, 2)


def _pinned(tensors: list[Tensor], plan: BatchPlan, taps: int) -> Pinned:
    faces = plan.targets.padded()
    return [tensor.pin_memory() for tensor in tensors], faces.pin_memory(), taps


def _to_gpu(pixels: np.ndarray, device: torch.device, chunk: int = 2**26) -> Tensor:
    flat = torch.empty(len(pixels), dtype=torch.uint8, device=device)
    for start in range(0, len(pixels), chunk):  # never all of the memory-mapped file in memory
        flat[start : start + chunk] = torch.from_numpy(pixels[start : start + chunk])
    return flat


def _prefetch(
    source: Iterator[list[Pinned]], move: Callable[[list[Pinned]], list[Batch]]
) -> Iterator[list[Batch]]:
    """`move` applied to each item on a separate CUDA stream, PREFETCH items ahead."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())  # the images' copy may be pending
    ready: deque[tuple[list[Batch], torch.cuda.Event, object]] = deque()

    def prepare() -> None:
        if (item := next(source, None)) is not None:
            with torch.cuda.stream(stream):
                moved = move(item)
            ready.append(
                (moved, stream.record_event(), item)
            )  # keeps pinned memory until the copy ends

    for _ in range(PREFETCH):
        prepare()
    while ready:
        parts, event, _ = ready.popleft()
        consumer = torch.cuda.current_stream()
        consumer.wait_event(event)
        for part in parts:
            for tensor in (part.images, *part.faces.tensors):
                tensor.record_stream(consumer)
        yield parts
        prepare()
