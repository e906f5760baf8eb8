"""Batches for a device, as far as a CPU can tell; test_gpu.py has the rest."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detector.config.presets import load_preset
from detector.config.recipe import Augmentation, Recipe
from detector.data.cache import cache_images
from detector.data.loader import batches, map_batches
from detector.data.targets import Targets, bucket
from detector.training.feed import (
    PREFETCH,
    Feed,
    _prefetch,
    colors,
    recolor_and_flip,
    renders_on_gpu,
)

RECIPE = Recipe(size=96, batch_size=4, accumulate=2)


@pytest.fixture(scope="module")
def images(tiny_data, tmp_path_factory):
    return cache_images(tiny_data.train, tmp_path_factory.mktemp("cache"), None)


AUGMENTATIONS = {
    "default": Augmentation(),
    "random interpolation": Augmentation(interpolation="random"),
    "scrfd": load_preset("scrfd_2.5g")[1].augmentation,
}


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=list(AUGMENTATIONS))
def test_colors_and_flips_may_be_left_to_the_device(images, augmentation):
    recipe = replace(RECIPE, augmentation=augmentation)

    def render(plan):
        pixels = np.empty((len(plan.indices), 96, 96, 3), np.uint8)
        plan.crop(images, pixels, finish=False)
        return recolor_and_flip(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.from_numpy(plan.transforms.flips),
            colors(plan),
        )

    for own, batch in zip(
        map_batches(images, recipe, render, epoch=1, seed=0),
        batches(images, recipe, epoch=1, seed=0),
        strict=True,
    ):
        apart = (own.int() - batch.images.int()).abs()
        assert apart.max() <= 1
        assert own.is_contiguous(memory_format=torch.channels_last)


def test_images_are_cropped_on_the_host_where_the_gpu_lacks_the_interpolation(images):
    assert renders_on_gpu(RECIPE)
    random = replace(RECIPE, augmentation=Augmentation(interpolation="random"))
    assert not renders_on_gpu(random)
    assert not Feed(images, random, torch.device("cpu"), workers=0).resident
    with pytest.raises(AssertionError, match="cannot render"):
        Feed(images, random, torch.device("cpu"), workers=0, resident=True)


def test_the_feed_gives_the_parts_of_each_batch(images):
    feed = Feed(images, RECIPE, torch.device("cpu"), workers=2)
    for parts, batch in zip(feed.epoch(3), batches(images, RECIPE, epoch=3, seed=0), strict=True):
        assert torch.cat([part.images for part in parts]).equal(batch.images)
        assert torch.cat([part.faces.boxes for part in parts]).equal(batch.faces.boxes)
        assert [part.faces.images for part in parts] == [2, 2]


def test_parts_of_a_plan_are_those_of_its_batch(images):
    plans = list(map_batches(images, RECIPE, lambda plan: plan, epoch=1, seed=0))
    for plan, batch in zip(plans, batches(images, RECIPE, epoch=1, seed=0), strict=True):
        for count in (1, 3, 9):
            for part, wanted in zip(plan.parts(count), batch.parts(count), strict=True):
                assert part.targets.images == len(wanted.images)
                for own, other in zip(part.targets.tensors, wanted.faces.tensors):
                    assert torch.allclose(own.float(), other.float(), equal_nan=True)


def test_padded_faces_do_not_exist_and_few_lengths_occur():
    assert [bucket(count) for count in (0, 1, 128, 129, 1000)] == [128, 128, 128, 256, 1024]
    faces = Targets.of(
        [{"boxes": torch.tensor([[1.0, 2, 3, 4]]), "ignore": torch.tensor([False])}]
    ).padded()
    assert faces.exists.sum() == 1 and len(faces.boxes) == len(faces.image) == 128


class Stream:
    """Of a device that does everything at once."""

    def wait_stream(self, other):
        pass

    def wait_event(self, event):
        pass

    def record_event(self):
        pass


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_batches_are_moved_ahead_and_come_in_order(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    moved = []

    def move(number):
        moved.append(number)
        return [
            SimpleNamespace(
                images=SimpleNamespace(record_stream=lambda stream: None),
                faces=SimpleNamespace(tensors=()),
                number=number,
            )
        ]

    taken = 0
    for taken, (part,) in enumerate(_prefetch(iter(range(count)), move), 1):
        assert part.number == taken - 1
        assert moved == list(range(min(taken - 1 + PREFETCH, count)))  # never more than PREFETCH
    assert taken == count
