"""A training step: gradient accumulation, workers, mixed precision, precise batch normalisation."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import helpers
import pytest
import torch
from helpers import teacher_file

from detector.boxes.anchors import priors
from detector.config.detector import Anchors, Head
from detector.config.presets import load_preset
from detector.config.recipe import Augmentation, Loss, Optimizer, Recipe
from detector.data.loader import Batch, batches
from detector.data.targets import Targets
from detector.losses.criterion import Criterion
from detector.network.model import blank_detector, build_detector
from detector.training import distributed
from detector.training.distributed import Worker
from detector.training.optim import make_optimizer, set_lr
from detector.training.step import (
    Precision,
    load_teacher,
    memory_format,
    set_train_mode,
    train_step,
)

CONFIG = helpers.TINY_DETECTOR
RECIPE = Recipe(
    epochs=4,
    size=64,
    batch_size=5,
    augmentation=Augmentation(scales=(0.6, 1)),
    optimizer=Optimizer(lr=0.01, clip_norm=10.0),
)
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def one_step(config, recipe, batch, teacher=None, **loaded):
    """Model after a step from seed 0, the losses, and the precision."""
    model = build_detector(config).to(memory_format=memory_format(recipe))
    set_train_mode(model, recipe)
    precision = Precision(recipe, CPU)
    if loaded:
        precision.scaler.load_state_dict(precision.scaler.state_dict() | loaded)
    optimizer = make_optimizer(model, recipe.optimizer)
    losses = train_step(model, optimizer, batch, config, recipe, precision, teacher)
    return model, losses, precision


@pytest.fixture(scope="module")
def batch(tiny_data):
    return next(iter(batches(tiny_data.train, RECIPE, epoch=4, seed=0)))


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_sixteen_bits_agree_with_float32(batch, kind):
    """One step of each from the same weights: the same losses but for rounding."""
    exact = one_step(CONFIG, replace(RECIPE, precision="fp32"), batch)[1]
    _, rough, precision = one_step(CONFIG, replace(RECIPE, precision=kind), batch)
    assert kind == "bf16" or precision.scale >= 1
    assert rough != exact
    for name, value in rough.items():
        assert value == pytest.approx(exact[name], rel=0.05 if kind == "bf16" else 0.005)


def test_a_step_that_overflows_in_fp16_is_left_out(batch):
    recipe = replace(RECIPE, precision="fp16")
    before = build_detector(CONFIG).state_dict()
    model, losses, precision = one_step(CONFIG, recipe, batch, scale=2.0**40)
    assert all(weight.equal(before[name]) for name, weight in model.named_parameters())
    assert precision.scaler.get_scale() == 2.0**39
    assert torch.tensor(list(losses.values())).isfinite().all()

    model, *_ = one_step(CONFIG, recipe, batch)  # 2 ** 16, as it begins
    assert not any(
        weight.equal(before[name]) for name, weight in model.named_parameters() if weight.ndim == 4
    )
    _, _, precision = one_step(CONFIG, replace(recipe, precision="auto"), batch)
    assert precision.scale is None


def test_gradients_are_clipped_as_they_are_not_as_they_were_scaled(batch):
    for norm in (1e-3, 1e4):
        recipe = replace(RECIPE, optimizer=replace(RECIPE.optimizer, clip_norm=norm))
        found = [
            torch.cat(
                [
                    p.grad.flatten()
                    for p in one_step(CONFIG, replace(recipe, precision=kind), batch)[
                        0
                    ].parameters()
                ]
            )
            for kind in ("fp32", "fp16")
        ]
        assert found[1].norm().item() == pytest.approx(found[0].norm().item(), rel=0.01)
        assert found[1].norm() <= norm * 1.001


ANCHOR_FREE = replace(
    CONFIG,
    head=Head(landmarks=True, score="objectness", coding="point"),
    anchors=Anchors(name="cell", offset=0),
)
LOSSES = {
    "retinaface": (CONFIG, Loss()),
    "cross entropy": (CONFIG, Loss(class_loss="cross_entropy", box_loss="giou")),
    "focal, atss": (CONFIG, Loss(class_loss="focal", assignment="atss", box_loss="diou")),
    "scrfd": (
        replace(CONFIG, head=Head(score="sigmoid", coding="distance", shared=True)),
        Loss(class_loss="quality_focal", assignment="atss", box_loss="diou"),
    ),
    "yunet": (ANCHOR_FREE, Loss(class_loss="cross_entropy", assignment="simota", box_loss="eiou")),
    "all by predictions": (ANCHOR_FREE, Loss(class_loss="quality_focal", assignment="simota")),
    "ohem by predictions": (CONFIG, Loss(assignment="simota", box_loss="giou")),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("parts", [2, 3, 5, 8])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(batch, name, parts):
    """5 images with unlike numbers of faces, some without: parts differ in what they count."""
    config, loss = LOSSES[name]
    recipe = replace(
        RECIPE, loss=loss, norm="frozen", precision="fp32", optimizer=Optimizer(lr=0.01)
    )
    whole, losses, _ = one_step(config, recipe, batch)
    split, same, _ = one_step(config, replace(recipe, accumulate=parts), batch)
    assert same == pytest.approx(losses, rel=1e-5)
    assert losses["box"] > 0
    for (key, p), q in zip(whole.named_parameters(), split.parameters()):
        assert (p.grad - q.grad).norm() <= 1e-5 * p.grad.norm(), key


class Workers:
    """Threads in the place of processes: `all_reduce_sum` adds what all of them hand in."""

    def __init__(self, count):
        self.count, self.handed = count, [None] * count
        self.barrier, self.own = threading.Barrier(count), threading.local()

    def this_worker(self):
        return Worker(self.own.rank, self.count)

    def all_reduce_sum(self, values):
        self.handed[self.own.rank] = values.clone()
        self.barrier.wait(timeout=60)
        values.copy_(torch.stack(self.handed).sum(0))
        self.barrier.wait(timeout=60)
        return values

    def run(self, function):
        def work(rank):
            self.own.rank = rank
            return function(rank)

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(work, range(self.count)))


@pytest.mark.parametrize("name", LOSSES)
def test_workers_have_the_gradients_of_one(batch, name, monkeypatch):
    """Three workers with 2, 2 and 1 of 5 images, in two parts where they can."""
    config, loss = LOSSES[name]
    recipe = replace(RECIPE, loss=loss, norm="frozen", precision="fp32")
    alone, losses, _ = one_step(config, recipe, batch)
    workers = Workers(3)
    monkeypatch.setattr(distributed, "this_worker", workers.this_worker)
    monkeypatch.setattr(distributed, "all_reduce_sum", workers.all_reduce_sum)
    split = replace(recipe, accumulate=2)
    found = workers.run(
        lambda rank: one_step(config, split, Batch(batch.images[rank::3], batch.targets[rank::3]))
    )
    for model, same, _ in found:
        assert same == pytest.approx(losses, rel=1e-5)
        for (key, p), q in zip(alone.named_parameters(), model.parameters()):
            assert (p.grad - q.grad).norm() <= 1e-5 * p.grad.norm(), key
    weights = [model.state_dict() for model, *_ in found]
    assert all(w[key].equal(weights[0][key]) for w in weights for key in w)


def test_parts_and_workers_with_a_teacher_have_the_gradients_of_one(batch, tmp_path, monkeypatch):
    """Of another head; what its losses are divided by is summed, too."""
    file = teacher_file(tmp_path, ANCHOR_FREE, seed=5)
    recipe = replace(RECIPE, norm="frozen", precision="fp32")
    teacher = load_teacher(file, CONFIG, recipe, CPU)
    alone, losses, _ = one_step(CONFIG, recipe, batch, teacher)
    assert losses["teacher_score"] > 0 and losses["teacher_box"] > 0
    terms = ("class", "box", "box", "landmark", "teacher_score", "teacher_box")  # box counts twice
    assert losses["total"] == pytest.approx(sum(losses[term] for term in terms), rel=1e-5)
    split = replace(recipe, accumulate=3)
    found = [one_step(CONFIG, split, batch, teacher)]
    workers = Workers(2)
    monkeypatch.setattr(distributed, "this_worker", workers.this_worker)
    monkeypatch.setattr(distributed, "all_reduce_sum", workers.all_reduce_sum)
    found += workers.run(
        lambda rank: one_step(
            CONFIG, split, Batch(batch.images[rank::2], batch.targets[rank::2]), teacher
        )
    )
    for model, same, _ in found:
        assert same == pytest.approx(losses, rel=1e-5)
        for (key, p), q in zip(alone.named_parameters(), model.parameters()):
            assert (p.grad - q.grad).norm() <= 1e-5 * p.grad.norm(), key


def test_alone_nothing_is_shared():
    values = torch.tensor([1.0, 2.0])
    assert distributed.this_worker() == (0, 1)
    assert distributed.all_reduce_sum(values) is values and values.tolist() == [1.0, 2.0]


def test_every_parameter_gets_a_gradient():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[20.0, 20, 40, 42], [60, 60, 150, 170], [0, 0, 256, 256]])
    landmarks = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2]) * torch.rand(
        3, 5, 2, generator=generator
    )
    truth = {"boxes": boxes, "landmarks": landmarks, "ignore": torch.zeros(3, dtype=torch.bool)}
    model = build_detector(CONFIG)
    optimizer = make_optimizer(model, RECIPE.optimizer)
    train_step(
        model, optimizer, Batch(images, [truth, truth]), CONFIG, RECIPE, Precision(RECIPE, CPU)
    )
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_training_overfits_one_batch(tiny_data):
    recipe = replace(RECIPE, size=128)
    batch = next(iter(batches(tiny_data.train, recipe, epoch=1, seed=0)))
    model = build_detector(CONFIG).to(memory_format=memory_format(recipe))
    optimizer = make_optimizer(model, recipe.optimizer)
    set_lr(optimizer, 0.01)
    history = [
        train_step(model, optimizer, batch, CONFIG, recipe, Precision(recipe, CPU))
        for _ in range(40)
    ]
    for name in ("class", "box", "landmark"):
        assert history[-1][name] < 0.6 * history[0][name]


@pytest.mark.parametrize("class_loss", ["ohem", "focal", "quality_focal"])
@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou", "diou", "eiou"])
@pytest.mark.parametrize("name", ["retinaface_mobile025", "scrfd_0.5g", "yunet_n"])
def test_losses_and_gradients_never_ask_a_device_for_a_value(name, class_loss, box_loss):
    """Tensors of the meta device have none to give: whatever asks raises. (A GPU would be waited
    for, and its step could not be captured as a graph.)"""
    config, recipe = load_preset(name)
    loss = replace(recipe.loss, class_loss=class_loss, box_loss=box_loss)
    meta = torch.device("meta")
    with meta:
        targets = Targets(
            torch.empty(128, 4),
            torch.empty(128, 5, 2),
            torch.empty(128, dtype=torch.bool),
            torch.empty(128, dtype=torch.int64),
            2,
        )
        images = torch.empty(2, 3, 64, 64, dtype=torch.uint8)
    model, boxes = blank_detector(config), priors(config, (64, 64), meta)
    Criterion(loss)(model(images), targets, boxes)["total"].backward()
    assert all(p.grad is not None for p in model.parameters())
