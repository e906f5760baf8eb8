"""Training: it learns, it is reproducible, it resumes exactly, and it says what went wrong."""

import json
from dataclasses import replace

import pytest
import torch

from detector import checkpoint, fit
from detector.config import Backbone, Context, Detector, Neck
from detector.data.loader import Batch, batches
from detector.errors import TrainingError, UserError
from detector.model import build_detector
from detector.optim import make_optimizer, set_lr
from detector.recipe import Augmentation, Evaluation, Optimizer, Recipe

CONFIG = Detector(backbone=Backbone(kind="mobilenet_v1", stem=8, widths=(8, 16, 16, 32, 32),
                                    depths=(1, 1, 1, 1, 1)),
                  neck=Neck(levels=(3, 4, 5), width=16), context=Context(kind="none"))
RECIPE = Recipe(epochs=4, size=64, batch_size=5, seed=3, augmentation=Augmentation(scales=(0.6, 1)),
                optimizer=Optimizer(lr=0.01, schedule="cosine", clip_norm=10.0),
                evaluation=Evaluation(size=96, every=2))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fake_ap(monkeypatch):
    """Evaluation that costs nothing and changes nothing."""
    monkeypatch.setattr(fit, "_evaluate",
                        lambda *arguments: {"easy": 0.3, "medium": 0.2, "hard": 0.1})


def weights(folder):
    return checkpoint.load(folder / fit.LAST).model


def equal(a, b):
    return list(a) == list(b) and all(a[name].equal(b[name]) for name in a)


def run(data, workdir, recipe=RECIPE, **options):
    return list(fit.fit(CONFIG, recipe, data.train, data.holdout, workdir=workdir, device="cpu",
                        **options))


def test_two_runs_are_equal_and_leave_the_global_generator_alone(tiny_data, tmp_path, fake_ap):
    before = torch.get_rng_state()
    first = run(tiny_data, tmp_path / "a", until=2)
    assert torch.get_rng_state().equal(before)
    torch.rand(7)  # a caller that draws in between changes nothing
    second = run(tiny_data, tmp_path / "b", until=2)
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert [e.losses for e in first] == [e.losses for e in second]
    other = replace(RECIPE, seed=4)
    run(tiny_data, tmp_path / "c", other, until=1)
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_stop_and_resume_equals_uninterrupted(tiny_data, tmp_path, fake_ap):
    straight = run(tiny_data, tmp_path / "a")
    assert [e.epoch for e in run(tiny_data, tmp_path / "b", until=2)] == [1, 2]

    def interrupt(epoch, step, steps, losses):
        if (epoch, step) == (4, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # in the middle of epoch 4, which starts again
        run(tiny_data, tmp_path / "b", progress=interrupt)
    resumed = run(tiny_data, tmp_path / "b")
    assert [e.epoch for e in resumed] == [4]
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert resumed[0].losses == straight[3].losses
    states = [checkpoint.load(tmp_path / name / fit.LAST).state for name in "ab"]
    for index, momentum in states[0]["optimizer"]["state"].items():
        assert momentum["momentum_buffer"].equal(
            states[1]["optimizer"]["state"][index]["momentum_buffer"])
    assert run(tiny_data, tmp_path / "b") == []  # nothing left to do


def test_what_an_epoch_tells(tiny_data, tmp_path, fake_ap):
    steps = []
    epochs = run(tiny_data, tmp_path, until=3,
                 progress=lambda *told: steps.append(told))
    assert [e.epoch for e in epochs] == [1, 2, 3]
    assert [e.ap is not None for e in epochs] == [False, True, True]  # every 2, and the last
    count = len(tiny_data.train) // 5  # the partial batch at the end is left out
    assert [e.images for e in epochs] == [5 * count] * 3
    assert [told[:3] for told in steps] == [(e, s, count) for e in (1, 2, 3)
                                            for s in range(1, count + 1)]
    assert set(epochs[0].losses) == {"class", "box", "landmark", "total"}
    mean = sum(told[3]["total"] for told in steps[:count]) / count
    assert epochs[0].losses["total"] == pytest.approx(mean)
    readable = json.loads((tmp_path / "last.json").read_text())
    assert readable["epoch"] == 3
    assert readable["ap"] == epochs[-1].ap


def test_bfloat16_and_float32_agree(tiny_data):
    """One step of each from the same weights: the same losses but for rounding."""
    batch = next(iter(batches(tiny_data.train, RECIPE, epoch=1, seed=0)))
    found = []
    for autocast in (True, False):
        recipe = replace(RECIPE, autocast=autocast)
        model = build_detector(CONFIG).to(memory_format=fit.layout(recipe))
        optimizer = make_optimizer(model, recipe.optimizer)
        found.append(fit.train_step(model, optimizer, batch, CONFIG, recipe,
                                    fit.precision(recipe, CPU)))
    for name, value in found[0].items():
        assert value == pytest.approx(found[1][name], rel=0.05)


def test_every_parameter_gets_a_gradient():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[20.0, 20, 40, 42], [60, 60, 150, 170], [0, 0, 256, 256]])
    landmarks = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2]) * torch.rand(
        3, 5, 2, generator=generator)
    truth = {"boxes": boxes, "landmarks": landmarks, "ignore": torch.zeros(3, dtype=torch.bool)}
    model = build_detector(CONFIG)
    optimizer = make_optimizer(model, RECIPE.optimizer)
    fit.train_step(model, optimizer, Batch(images, [truth, truth]), CONFIG, RECIPE,
                   fit.precision(RECIPE, CPU))
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_batch_is_learnt_by_heart(tiny_data):
    recipe = replace(RECIPE, size=128)
    batch = next(iter(batches(tiny_data.train, recipe, epoch=1, seed=0)))
    model = build_detector(CONFIG).to(memory_format=fit.layout(recipe))
    optimizer = make_optimizer(model, recipe.optimizer)
    set_lr(optimizer, 0.01)
    history = [fit.train_step(model, optimizer, batch, CONFIG, recipe, fit.precision(recipe, CPU))
               for _ in range(40)]
    for name in ("class", "box", "landmark"):
        assert history[-1][name] < 0.6 * history[0][name]


def test_a_loss_that_is_not_finite_is_an_error_of_ours(tiny_data, tmp_path, fake_ap):
    recipe = replace(RECIPE, optimizer=Optimizer(lr=1e30, warmup_epochs=0))
    with pytest.raises(TrainingError, match=r"not finite at epoch 1, step \d of 3 \(class .*box"):
        run(tiny_data, tmp_path, recipe)
    assert not (tmp_path / fit.LAST).exists()


def test_another_training_in_the_folder_is_refused(tiny_data, tmp_path, fake_ap):
    run(tiny_data, tmp_path, until=1)
    other = replace(RECIPE, optimizer=replace(RECIPE.optimizer, lr=0.5))
    with pytest.raises(UserError, match=r"last\.pt: .*optimizer\.lr: 0\.01 there, 0\.5 here"):
        run(tiny_data, tmp_path, other)
    design = replace(CONFIG, neck=replace(CONFIG.neck, width=24))
    with pytest.raises(UserError, match=r"last\.pt: holds design"):
        next(fit.fit(design, RECIPE, tiny_data.train, None, workdir=tmp_path, device="cpu"))


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fit.choose_device("auto").type == fit.choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="cuda asked for, but torch sees no GPU"):
        fit.choose_device("cuda")
    with pytest.raises(UserError, match="'tpu' is not one of auto, cpu, cuda"):
        fit.choose_device("tpu")


def test_settled_norms_are_the_statistics_of_the_images():
    """Evaluated with them, a batch gives what it gave in training (its variance is unbiased)."""
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    recipe = replace(RECIPE, autocast=False)
    model = build_detector(CONFIG)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(7.0)
    fit.settle_norms(model, [images], recipe, fit.precision(recipe, CPU))
    first = model.backbone.stages[0][0].conv(model.normalise(images))
    norm = model.backbone.stages[0][0].norm
    assert torch.allclose(norm.running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-3)
    assert torch.allclose(norm.running_var, first.var((0, 2, 3)), rtol=1e-4)
    assert norm.momentum == 0.1
