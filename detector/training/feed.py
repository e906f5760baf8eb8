"""Training batches on the device that trains, ready before they are asked for.

On a CPU they are made by threads, or when they are asked for. For a GPU there are two ways. Where
the images fit into a share of its memory they lie there, and one kernel renders the crops
(`gpu_crop`): the CPU only draws what each batch will show. Else threads decode, crop and resize
into pinned memory, and colours and flips are left to the GPU. Either way the next batch is copied
and rendered on a stream of its own while the present one is learnt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from detector.config.recipe import Recipe
from detector.data.loader import Batch, Plan, batches, rendered
from detector.data.targets import Targets
from detector.data.types import ImageSet
from detector.gpu.kernels import kernels_run
from detector.training.step import layout

RESIDENT_SHARE = 1 / 3
"""Of a GPU's free memory that the training images may take."""
AHEAD = 2
"""Batches on the GPU beside the one that is learnt."""

Pinned = tuple[list[Tensor], Targets, int]
"""Small tensors of a batch's part in pinned memory, its faces, and what `render` needs besides."""


class Feed:
    """The training batches of one device, epoch by epoch.

    Args:
        images: best a cache, which may move to the GPU as a whole.
        workers: threads that prepare batches ahead; 0: prepared when they are asked for, which is
            for CPUs alone.
        resident: whether the images lie in the GPU's memory; none: where they fit.
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
            resident = device.type == "cuda" and fits(images, device)
        self._flat = _to_gpu(images.pixels, device) if resident else None
        self._shapes = np.array(images.shapes) if resident else None

    @property
    def resident(self) -> bool:
        """Whether the images lie in the GPU's memory."""
        return self._flat is not None

    def epoch(self, epoch: int, share: tuple[int, int] = (0, 1)) -> Iterator[list[Batch]]:
        """The parts of each step's batch on the device, as many as `recipe.accumulate` says; the
        batches are those of `loader.rendered`."""
        recipe, how = self._recipe, {"epoch": epoch, "seed": self._recipe.seed, "share": share}
        if self._device.type != "cuda":
            for batch in batches(self._images, recipe, workers=self._workers, **how):
                yield [
                    part.to(self._device, layout(recipe)) for part in batch.parts(recipe.accumulate)
                ]
            return
        pin, finish = (
            (self._pin_places, self._render) if self.resident else (self._pin_crops, self._finish)
        )

        def prepare(plan: Plan) -> list[Pinned]:
            return [pin(part) for part in plan.parts(recipe.accumulate)]

        source = rendered(self._images, recipe, prepare, workers=max(self._workers, 1), **how)
        yield from _ahead(
            source,
            lambda parts: [
                Batch(
                    finish(
                        *(tensor.to(self._device, non_blocking=True) for tensor in tensors), extra
                    ).contiguous(memory_format=layout(recipe)),
                    faces.to(self._device),
                )
                for tensors, faces, extra in parts
            ],
        )

    def _pin_places(self, plan: Plan) -> Pinned:
        images, size = self._images, self._recipe.size
        starts = torch.from_numpy(images.starts[plan.indices])
        transforms = plan.transforms
        places = torch.from_numpy(
            np.column_stack(
                [self._shapes[plan.indices], transforms.windows, transforms.flips]
            ).astype(np.int32)
        )
        side = int(transforms.windows[:, 2].max())
        taps = 2 if side <= size else -(-side // size) + 1
        return _pinned([starts, places, colors(plan)], plan, taps)

    def _render(self, starts: Tensor, places: Tensor, own_colors: Tensor, taps: int) -> Tensor:
        from detector.data.gpu_crop import render

        return render(self._flat, starts, places, own_colors, self._recipe.size, taps)

    def _pin_crops(self, plan: Plan) -> Pinned:
        size = self._recipe.size
        pixels = torch.empty(len(plan.indices), size, size, 3, dtype=torch.uint8, pin_memory=True)
        plan.crop(self._images, pixels.numpy(), finish=False)
        return _pinned([pixels, torch.from_numpy(plan.transforms.flips), colors(plan)], plan, 0)

    def _finish(self, pixels: Tensor, flips: Tensor, own_colors: Tensor, _: int) -> Tensor:
        return finished(pixels.permute(0, 3, 1, 2), flips, own_colors)


def fits(images: ImageSet, device: torch.device) -> bool:
    """Whether the images can be kept in the GPU's memory and rendered there."""
    size = getattr(images, "nbytes", None)
    if not size or not kernels_run():
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return size <= RESIDENT_SHARE * free


def colors(plan: Plan) -> Tensor:
    """float32 [B, 3, 4], the change of each image's colours; see `transforms.Transforms`."""
    return torch.from_numpy(plan.transforms.colors.astype(np.float32))


def finished(images: Tensor, flips: Tensor, own_colors: Tensor) -> Tensor:
    """Images uint8 [B, 3, H, W] with their colours changed (float32 [B, 3, 4]) and, where `flips`
    (bool [B]) says so, left and right exchanged; channels-last in memory."""
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2).float()  # [B, HW, 3]
    mapped = torch.baddbmm(own_colors[:, None, :, 3], pixels, own_colors[:, :, :3].mT)
    mapped = mapped.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
    mapped = mapped.view(len(images), *images.shape[2:], 3)
    return torch.where(flips[:, None, None, None], mapped.flip(2), mapped).permute(0, 3, 1, 2)


def _pinned(tensors: list[Tensor], plan: Plan, extra: int) -> Pinned:
    faces = plan.targets.padded()
    return [tensor.pin_memory() for tensor in tensors], faces.pin_memory(), extra


def _to_gpu(pixels: np.ndarray, device: torch.device, chunk: int = 2**26) -> Tensor:
    flat = torch.empty(len(pixels), dtype=torch.uint8, device=device)
    for start in range(0, len(pixels), chunk):  # the file is mapped: never whole in memory
        flat[start : start + chunk] = torch.from_numpy(pixels[start : start + chunk])
    return flat


def _ahead(source: Iterator, move: Callable[..., list[Batch]]) -> Iterator[list[Batch]]:
    """What `move` makes of each item on a stream of its own, AHEAD items early."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())  # the images may be on their way yet
    ready: deque[tuple[list[Batch], torch.cuda.Event, object]] = deque()

    def prepare() -> None:
        if (item := next(source, None)) is not None:
            with torch.cuda.stream(stream):
                moved = move(item)
            ready.append((moved, stream.record_event(), item))  # pinned memory lives until used

    for _ in range(AHEAD):
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
