"""Precise BN: statistics of the right images, computed right."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import helpers
import numpy as np
import pytest
import torch

from detector.config.presets import load_preset
from detector.config.recipe import Augmentation, Evaluation, Recipe
from detector.config.shipped import shipped_files
from detector.data.loader import batches
from detector.network.model import build_detector
from detector.training import precise_bn
from detector.training.precise_bn import (
    batching,
    calibrate,
    evaluation_images,
    evaluation_side,
    recalibrate_batchnorm,
)
from detector.training.step import Precision

CONFIG = helpers.TINY_DETECTOR
CPU = torch.device("cpu")
RECIPE = Recipe(
    size=64, batch_size=4, precision="fp32", evaluation=Evaluation(size=96), cache_size=None
)

pytestmark = pytest.mark.usefixtures("one_thread")


def statistics(model):
    return {name: value for name, value in model.named_buffers() if "running" in name}


def test_statistics_are_those_of_the_images():
    """Evaluated with them, a batch gives what it gave in training (its variance is unbiased)."""
    images = torch.randint(
        0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model = build_detector(CONFIG)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(7.0)
    recalibrate_batchnorm(model, [images], RECIPE, Precision(RECIPE, CPU))
    first = model.backbone.stages[0][0].conv(model.normalise(images))
    norm = model.backbone.stages[0][0].norm
    assert torch.allclose(norm.running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-3)
    assert torch.allclose(norm.running_var, first.var((0, 2, 3)), rtol=1e-4)
    assert norm.momentum == 0.1


def test_frozen_norms_keep_their_statistics(tiny_data):
    recipe = replace(RECIPE, norm="frozen")
    before = build_detector(CONFIG).state_dict()
    model = build_detector(CONFIG)
    calibrate(model, tiny_data.train, recipe, Precision(recipe, CPU))
    assert all(value.equal(before[name]) for name, value in statistics(model).items())
    calibrate(model, tiny_data.train, RECIPE, Precision(RECIPE, CPU))
    assert not any(value.equal(before[name]) for name, value in statistics(model).items())


def test_images_are_as_large_as_evaluated_ones(tiny_data):
    sizes = [label.size for label in tiny_data.train.labels]
    shorts = [min(size) * min(1, 96 / max(size)) for size in sizes]
    side = evaluation_side(tiny_data.train, RECIPE)
    assert side % 32 == 0 and abs(side - np.median(shorts)) <= 16
    assert evaluation_side(tiny_data.train, replace(RECIPE, size=640)) == 640
    whole = replace(RECIPE, evaluation=Evaluation())
    assert abs(evaluation_side(tiny_data.train, whole) - np.median([min(s) for s in sizes])) <= 16
    assert {tuple(images.shape[2:]) for images in evaluation_images(tiny_data.train, RECIPE)} == {
        (side, side)
    }


def test_images_are_always_the_same_and_unchanged_in_colour(tiny_data, monkeypatch):
    """Whatever the seed and the augmentation of a training; so looks differ by weights alone."""
    monkeypatch.setattr(precise_bn, "IMAGES", 8)
    other = replace(
        RECIPE,
        seed=9,
        size=32,
        augmentation=Augmentation(scales=(0.3, 2.0), photometric=1.0, permute_channels=1.0),
    )
    first = list(evaluation_images(tiny_data.train, RECIPE))
    assert sum(len(images) for images in first) == 8
    again = list(evaluation_images(tiny_data.train, other))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    plain = replace(
        RECIPE,
        size=first[0].shape[2],
        augmentation=Augmentation(scales=(1.0,), photometric=0.0),
    )
    batch = next(iter(batches(tiny_data.train, plain, epoch=0, seed=precise_bn.SEED)))
    assert first[0].equal(batch.images)


def test_parts_of_accumulated_steps_are_small(tiny_data):
    parts = list(evaluation_images(tiny_data.train, replace(RECIPE, accumulate=2)))
    assert {len(images) for images in parts} == {2}


def test_large_images_are_scaled_down_and_pass_in_small_batches(tiny_data, monkeypatch):
    """A photograph of 12 megapixels would take a gigabyte by itself."""
    photographs = [replace(label, size=(4000, 3000)) for label in tiny_data.train.labels]
    whole = replace(RECIPE, evaluation=Evaluation())
    train = SimpleNamespace(labels=photographs)
    assert evaluation_side(train, whole) == precise_bn.MAX_SIDE
    assert evaluation_side(train, replace(whole, size=2048)) == 2048
    (uncut,) = itertools.islice(evaluation_images(tiny_data.train, RECIPE), 1)
    side = uncut.shape[2]
    monkeypatch.setattr(precise_bn, "MAX_PIXELS", 3 * side**2)
    monkeypatch.setattr(precise_bn, "IMAGES", 4)
    small = replace(RECIPE, size=32)
    monkeypatch.setattr(precise_bn, "evaluation_side", lambda *_: side)
    cut = list(evaluation_images(tiny_data.train, small))
    assert [len(images) for images in cut] == [2, 2] and torch.cat(cut).equal(uncut)
    # A training step of as many pixels fits into memory, so these do, too.
    larger = replace(RECIPE, size=side)
    assert [len(images) for images in evaluation_images(tiny_data.train, larger)] == [4]


def test_batches_of_shipped_recipes_on_wider_are_those_of_training():
    """So the results that were recorded with them stay."""
    labels = [SimpleNamespace(size=(1024, height)) for height in (683, 684, 768)]
    recipes = [load_preset(path.stem)[1] for path in shipped_files("preset")]
    for recipe in recipes + [replace(recipe, batch_size=12, size=192) for recipe in recipes]:
        side = evaluation_side(SimpleNamespace(labels=labels), recipe)
        assert side < precise_bn.MAX_SIDE
        assert batching(recipe, recipe.batch_size, side) == (recipe.batch_size, recipe.accumulate)


def test_the_mean_of_unequal_batches_is_that_of_their_images():
    images = torch.randint(
        0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model = build_detector(CONFIG)
    recalibrate_batchnorm(model, images.split([4, 1]), RECIPE, Precision(RECIPE, CPU))
    first = model.backbone.stages[0][0].conv(model.normalise(images))
    mean = model.backbone.stages[0][0].norm.running_mean
    assert torch.allclose(mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-3)
