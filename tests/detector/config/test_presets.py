"""Every published detector trains and detects from its configuration alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from detector.base.errors import ConfigError
from detector.boxes.anchors import priors
from detector.boxes.coding import iou
from detector.boxes.postprocess import postprocess
from detector.config.detector import Detector
from detector.config.presets import load_preset
from detector.config.recipe import Augmentation, Optimizer, Recipe
from detector.data.loader import batches
from detector.network.model import build_detector
from detector.training.optim import make_optimizer
from detector.training.step import Precision, train_step

PRESETS = Path(__file__).resolve().parents[3] / "search_spaces" / "presets"
SIZE = 96


def read(name):
    content = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
    recipe = Recipe.from_dict(content["recipe"])
    return Detector.from_dict(content["detector"]), replace(
        recipe,
        size=SIZE,
        batch_size=4,
        precision="fp32",
        augmentation=Augmentation(scales=(0.5,)),
        optimizer=Optimizer(kind="adamw", lr=0.004, weight_decay=0.0),
    )


def train_on_a_batch(name, data, steps):
    config, recipe = read(name)
    batch = next(batches(data.train, recipe, epoch=1, seed=0))
    model = build_detector(config)
    optimizer = make_optimizer(model, recipe.optimizer)
    for _ in range(steps):
        losses = train_step(
            model, optimizer, batch, config, recipe, Precision(recipe, torch.device("cpu"))
        )
    return model, config, recipe, batch, losses


@pytest.mark.parametrize(
    "name",
    [
        "retinaface_mobile025",
        "tiny_ssd300",
        "scrfd_0.5g",
        "scrfd_2.5g",
        "damofd_0.5g",
        "yunet_n",
        "eresfd",
    ],
)
def test_presets_overfit_a_batch(name, tiny_data):
    model, config, recipe, batch, _ = train_on_a_batch(name, tiny_data, steps=50)
    with torch.no_grad():
        results = postprocess(model(batch.images), priors(config, (SIZE, SIZE)), recipe.evaluation)
    faces = hits = 0
    for detections, target in zip(results, batch.targets):
        boxes = target["boxes"][~target["ignore"]]
        faces += len(boxes)
        confident = detections.boxes[detections.scores > 0.3]
        hits += int((iou(boxes, confident) > 0.5).any(1).sum())
        assert len(confident) <= len(boxes) + 1
    assert faces >= 4
    assert hits >= 0.75 * faces


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_takes_steps_that_reach_all_its_parameters(name, tiny_data):
    model, _, _, _, losses = train_on_a_batch(name, tiny_data, steps=2)
    assert all(torch.isfinite(torch.tensor(value)) for value in losses.values())
    assert not [
        key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]


ORIGINALS = {
    "retinaface": {
        "initialization": "torch",
        "augmentation": {"crop": "whole_face", "interpolation": "random", "ignore_invalid": False},
        "loss": {"unmatched": "background", "min_positives": 0},
    },
    "scrfd": {
        "initialization": "scrfd",
        "augmentation": {
            "crop": "face_centre",
            "hue": 18.0,
            "permute_channels": 0.5,
            "padding": [128, 128, 128],
        },
        "loss": {"unmatched": "background", "min_positives": 1},
    },
    "yunet": {
        "initialization": "yunet",
        "augmentation": {"crop": "face_centre", "photometric": 0.0, "padding": [128, 128, 128]},
        "loss": {"unmatched": "background", "min_positives": None},
    },
    "eresfd": {
        "augmentation": {"crop": "whole_face", "hue": 18.0, "min_face": 6.0},
        "loss": {"unmatched": "background", "force_iou": 0.0, "negatives": 3.0},
    },
    "tiny": {
        "augmentation": {"hue": 18.0, "permute_channels": 0.5},
        "loss": {"unmatched": "background", "force_iou": 0.0},
    },
}


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_are_trained_as_their_originals(name):
    recipe = load_preset(name)[1].to_dict()
    expected = ORIGINALS[name.split("_")[0].replace("damofd", "scrfd")]
    assert recipe["optimizer"]["decay_norms"]
    assert recipe["augmentation"]["clip_boxes"] == (
        name not in ("scrfd_2.5g", "scrfd_10g", "damofd_2.5g", "damofd_10g")
    )
    for key, value in expected.items():
        own = {k: recipe[key][k] for k in value} if isinstance(value, dict) else recipe[key]
        assert own == value


def test_recipes_without_the_newer_keys_train_as_before():
    recipe = Recipe.from_dict({"augmentation": {"flip": 0.5}, "loss": {}, "optimizer": {}})
    assert recipe == Recipe()
    assert (recipe.augmentation.crop, recipe.augmentation.hue) == ("whole_face", 36.0)
    assert recipe.augmentation.clip_boxes and recipe.augmentation.ignore_invalid
    assert recipe.augmentation.permute_channels == 0 and not recipe.optimizer.decay_norms
    assert (recipe.loss.unmatched, recipe.loss.min_positives) == ("ignored", None)
    assert recipe.initialization == "he"


@pytest.mark.parametrize(
    "section, key, value",
    [
        ("augmentation", "crop", "square"),
        ("augmentation", "interpolation", "cubic"),
        ("augmentation", "hue", 181),
        ("augmentation", "permute_channels", 1.5),
        ("augmentation", "padding", [1, 2]),
        ("augmentation", "padding", [1, 2, 256]),
        ("loss", "unmatched", "negative"),
        ("loss", "min_positives", -1),
        ("optimizer", "decay_norms", "yes"),
        ("optimizer", "weight_decay", -1e-4),
        ("optimizer", "warmup_epochs", -1),
        ("optimizer", "gamma", -0.1),
        ("optimizer", "clip_norm", -1),
        ("loss", "box_weight", -1),
        ("loss", "landmark_weight", -1),
        ("evaluation", "pre_nms", 0),
        ("evaluation", "keep", 0),
        ("evaluation", "keep", -1),
        ("evaluation", "every", -1),
    ],
)
def test_wrong_values_name_their_key(section, key, value):
    with pytest.raises(ConfigError, match=rf"^{section}\.{key}"):
        Recipe.from_dict({section: {key: value}})


def test_the_largest_momentum_depends_on_the_optimizer():
    assert Recipe.from_dict({"optimizer": {"momentum": 1.0}}).optimizer.momentum == 1
    with pytest.raises(ConfigError, match=r"^optimizer\.momentum: 1.0 must be below 1 with adamw"):
        Recipe.from_dict({"optimizer": {"kind": "adamw", "momentum": 1.0}})
