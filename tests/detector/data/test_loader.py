"""Batches: the same for the same seed, whatever else changes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detector.config.recipe import Augmentation, Recipe
from detector.data.cache import cache_images
from detector.data.loader import _Labels, batches
from detector.data.splits import Subset

RECIPE = Recipe(size=96, batch_size=4)


@pytest.fixture(scope="module")
def images(tiny_data, tmp_path_factory):
    return cache_images(tiny_data.train, tmp_path_factory.mktemp("cache"), None)


def _all(images, recipe=RECIPE, epoch=0, seed=0, workers=0):
    return list(batches(images, recipe, epoch=epoch, seed=seed, workers=workers))


def _equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert torch.equal(a.images, b.images) and len(a.targets) == len(b.targets)
        for s, t in zip(a.targets, b.targets):
            assert torch.equal(s["boxes"], t["boxes"]) and torch.equal(s["ignore"], t["ignore"])
            assert torch.equal(
                torch.nan_to_num(s["landmarks"], -1), torch.nan_to_num(t["landmarks"], -1)
            )


def test_shapes_and_types(images):
    got = _all(images)
    assert len(got) == len(images) // 4
    for batch in got:
        assert batch.images.shape == (4, 3, 96, 96) and batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        for target in batch.targets:
            count = len(target["boxes"])
            assert target["boxes"].shape == (count, 4)
            assert target["landmarks"].shape == (count, 5, 2)
            assert target["ignore"].shape == (count,)
            assert target["boxes"].dtype == target["landmarks"].dtype == torch.float32
            assert target["ignore"].dtype == torch.bool


def test_deterministic_whatever_the_workers(images):
    first = _all(images)
    _equal(first, _all(images))
    _equal(first, _all(images, workers=1))
    _equal(first, _all(images, workers=3))


def test_epochs_and_seeds_differ(images):
    first = _all(images)[0].images
    assert not torch.equal(first, _all(images, epoch=1)[0].images)
    assert not torch.equal(first, _all(images, seed=1)[0].images)


def test_an_image_looks_the_same_in_any_batch(images):
    """Augmentation depends on (seed, epoch, index), not on the batch it is in."""
    singles = [b.images[0] for b in _all(images, Recipe(size=96, batch_size=1))]
    fours = [image for b in _all(images) for image in b.images]
    assert all(torch.equal(a, b) for a, b in zip(singles, fours))


@pytest.mark.parametrize("workers", [2, 3])
def test_shards_together_are_the_batch(images, workers):
    shards = [
        list(batches(images, RECIPE, epoch=2, seed=1, shard=(rank, workers)))
        for rank in range(workers)
    ]
    for whole, *parts in zip(_all(images, epoch=2, seed=1), *shards):
        assert sum(len(part.targets) for part in parts) == len(whole.targets) == 4
        for i, (image, target) in enumerate(zip(whole.images, whole.targets)):
            part = parts[i % workers]
            assert torch.equal(image, part.images[i // workers])
            assert torch.equal(target["boxes"], part.targets[i // workers]["boxes"])


def test_parts_are_the_batch_in_order(images):
    batch = _all(images)[0]
    for count, sizes in ((1, [4]), (3, [1, 1, 2]), (4, [1] * 4), (9, [1] * 4)):
        parts = batch.parts(count)
        assert [len(part.targets) for part in parts] == sizes
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert [t for part in parts for t in part.targets] == batch.targets


def test_last_partial_batch(images):
    assert [len(b.targets) for b in _all(Subset(images, range(7), "seven"))] == [4]
    assert [len(b.targets) for b in _all(Subset(images, range(3), "three"))] == [3]
    assert _all(Subset(images, [], "none")) == []


def test_every_image_once_an_epoch(images):
    plain = Recipe(size=32, batch_size=1, augmentation=Augmentation(flip=0, photometric=0))
    seen = sum(len(b.targets) for b in _all(images, plain))
    assert seen == len(images)


def test_boxes_scale_with_a_smaller_cache(tiny_data, tmp_path):
    """With the same crop, boxes from a cache of half the size are the same to a pixel or so."""
    still = Recipe(
        size=96, batch_size=4, augmentation=Augmentation(scales=(1.0,), flip=0, photometric=0)
    )
    large = cache_images(tiny_data.train, tmp_path, None)
    half = cache_images(tiny_data.train, tmp_path, 176)
    pairs = 0
    for a, b in zip(_all(large, still), _all(half, still)):
        for s, t in zip(a.targets, b.targets):
            if len(s["boxes"]) == len(t["boxes"]):
                pairs += len(s["boxes"])
                if len(s["boxes"]):
                    assert (s["boxes"] - t["boxes"]).abs().max() < 3
    assert pairs > 20


def test_stopping_early_ends_the_threads(images):
    source = batches(images, RECIPE, epoch=0, seed=0, workers=2)
    next(source)
    source.close()


def test_invalid_faces_are_learnt_if_so_set_but_not_boxes_without_area(tiny_data):
    label = tiny_data.train.labels[0]
    boxes = np.float32([[10, 10, 40, 40], [50, 50, 80, 90], [30, 30, 30, 60]])
    unknown = np.full((3, 5, 2), np.nan, np.float32)
    flags = np.array([True, False, True])
    own = replace(label, boxes=boxes, landmarks=unknown, ignore=flags)
    kept = _Labels(SimpleNamespace(labels=[own]), True).faces([0])
    learnt = _Labels(SimpleNamespace(labels=[own]), False).faces([0])
    assert kept.ignore.tolist() == [True, False, True]
    assert learnt.ignore.tolist() == [False, False, True]
    assert flags.tolist() == [True, False, True]  # the label is as it was


def test_augmentations_of_other_settings_are_deterministic_too(images):
    augmentation = Augmentation(
        crop="face_centre", interpolation="random", permute_channels=0.5, clip_boxes=False
    )
    recipe = replace(RECIPE, augmentation=augmentation)
    _equal(_all(images, recipe), _all(images, recipe, workers=3))
