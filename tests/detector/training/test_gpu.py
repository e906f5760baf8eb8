"""What a GPU must do as a CPU does it, and without being waited for."""

from dataclasses import replace

import helpers
import numpy as np
import pytest
import torch

from detector.base.errors import TrainingError
from detector.boxes.anchors import priors
from detector.config.detector import Head
from detector.config.presets import load_preset
from detector.config.recipe import Augmentation, Evaluation, Loss, Optimizer, Recipe
from detector.data.cache import cache_images
from detector.data.loader import batches
from detector.inference.latency import latencies
from detector.inference.predict import detect, evaluate
from detector.losses.criterion import Criterion
from detector.network.model import build_detector
from detector.training import fit
from detector.training.ema import ModelEMA
from detector.training.feed import Feed, fits
from detector.training.optim import make_optimizer, set_lr
from detector.training.precise_bn import recalibrate_batchnorm
from detector.training.step import (
    Precision,
    gradient_step,
    memory_format,
    set_train_mode,
)
from detector.training.stepper import Stepper
from detector.weights import checkpoint
from detector.weights.file_names import LAST

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIG = helpers.TINY_DETECTOR
RECIPE = Recipe(
    epochs=3,
    size=128,
    batch_size=5,
    seed=3,
    precision="fp32",
    augmentation=Augmentation(scales=(0.6, 1)),
    optimizer=Optimizer(lr=0.01, clip_norm=10.0),
    evaluation=Evaluation(size=96),
)
GPU, CPU = torch.device("cuda"), torch.device("cpu")
RULES = pytest.mark.parametrize("rule", ["iou", "atss", "simota"])


@pytest.fixture(autouse=True)
def exact():
    """Without TF32, whose products have ten bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture(scope="module")
def images(tiny_data, tmp_path_factory):
    return cache_images(tiny_data.train, tmp_path_factory.mktemp("cache"), None)


@pytest.fixture(scope="module")
def batch(images):
    return next(iter(batches(images, RECIPE, epoch=1, seed=0)))


class Training:
    """A model and what trains it, on a device."""

    def __init__(self, device, recipe=RECIPE, config=CONFIG):
        self.model = build_detector(config).to(device, memory_format=memory_format(recipe))
        set_train_mode(self.model, recipe)
        self.precision = Precision(recipe, device)
        self.optimizer = make_optimizer(self.model, recipe.optimizer)
        self.rest = (config, recipe, self.precision)

    def step(self, *parts):
        return gradient_step(self.model, self.optimizer, parts, *self.rest)


def on(device, batch, recipe=RECIPE):
    return batch.to(device, memory_format(recipe))


def weights(folder):
    return checkpoint.load(folder / LAST).model


def close(a, b, atol):
    return list(a) == list(b) and all(
        torch.allclose(a[name].float(), b[name].float(), atol=atol)
        for name in a
        if "num_batches" not in name
    )


@pytest.mark.parametrize("kind", ["ohem", "quality_focal"])
@RULES
def test_a_step_equals_the_cpus(batch, rule, kind):
    loss = Loss(
        assignment=rule, class_loss=kind, box_loss="diou" if rule == "atss" else "smooth_l1"
    )
    recipe = replace(RECIPE, loss=loss)
    sides = []
    for device in (CPU, GPU):
        training = Training(device, recipe)
        losses = training.step(on(device, batch))
        sides.append(
            (
                {name: value.cpu() for name, value in losses.items()},
                {name: value.cpu() for name, value in training.model.state_dict().items()},
            )
        )
    for name, value in sides[0][0].items():
        assert sides[1][0][name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert close(sides[0][1], sides[1][1], 1e-4)


@pytest.mark.parametrize("kind", ["bf16", "fp16", "auto"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_sixteen_bits_train(batch, kind, optimizer):
    recipe = replace(RECIPE, precision=kind, optimizer=Optimizer(kind=optimizer, lr=0.003, ema=0.9))
    training = Training(GPU, recipe)
    average = ModelEMA(training.model, 0.9)
    history = []
    for _ in range(30):
        history.append(training.step(on(GPU, batch, recipe))["total"])
        average.update(training.model)
    assert torch.stack(history).isfinite().all()
    assert history[-1] < 0.8 * history[0]
    assert training.model.backbone.stages[0][0].conv.weight.is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize("name", ["retinaface_mobile025", "scrfd_0.5g", "yunet_n"])
@pytest.mark.parametrize("kind", ["bf16", "fp16", "fp32"])
def test_no_step_waits_for_the_gpu(images, name, kind):
    """Assigners, losses, optimiser, average, statistics: checked by torch itself."""
    config, published = load_preset(name)
    recipe = replace(
        published,
        size=128,
        batch_size=4,
        precision=kind,
        weights=None,
        optimizer=replace(published.optimizer, ema=0.9, clip_norm=5.0),
    )
    training = Training(GPU, recipe, config)
    average = ModelEMA(training.model, 0.9)
    parts = [on(GPU, own, recipe) for own in batches(images, recipe, epoch=1, seed=0)]
    training.step(parts[0])  # constants are moved once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for part in parts:
            set_lr(training.optimizer, 0.001)
            training.step(part)
            average.update(training.model)
        recalibrate_batchnorm(
            average.module, [part.images for part in parts], recipe, training.precision
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("resident", [True, False])
def test_no_batch_of_the_feed_is_waited_for(images, resident):
    if resident and not fits(images, GPU):
        pytest.skip("no Triton")
    feed = Feed(images, RECIPE, GPU, workers=2, resident=resident)
    list(feed.epoch(1))  # kernels are compiled, memory is allocated
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(feed.epoch(2))) == len(images) // 5
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("resident", [True, False])
def test_the_feed_shows_what_the_loader_shows(images, resident, accumulate):
    if resident and not fits(images, GPU):
        pytest.skip("no Triton")
    recipe = replace(RECIPE, accumulate=accumulate)
    feed = Feed(images, recipe, GPU, workers=2, resident=resident)
    own = batches(images, recipe, epoch=2, seed=recipe.seed)
    for parts, batch in zip(feed.epoch(2), own, strict=True):
        assert len(parts) == accumulate
        for part, wanted in zip(parts, batch.parts(accumulate)):
            assert part.images.shape == wanted.images.shape
            apart = (part.images.cpu().int() - wanted.images.int()).abs()
            assert apart.max() <= 4 and (apart > 1).float().mean() < 0.01
            count = len(wanted.faces.boxes)
            for got, there in zip(part.faces.tensors, wanted.faces.tensors):
                assert torch.allclose(got[:count].cpu().float(), there.float(), equal_nan=True)
            assert not part.faces.exists[count:].any()


@pytest.mark.parametrize("name", ["retinaface_mobile025", "scrfd_0.5g", "yunet_n"])
@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_a_graph_replays_the_steps(images, name, kind):
    """From the same weights, at changing rates, the same losses with graphs as without."""
    config, published = load_preset(name)
    recipe = replace(
        published,
        size=128,
        batch_size=4,
        precision=kind,
        weights=None,
        optimizer=replace(published.optimizer, lr=0.001),
    )
    sides = []
    for graph in (False, True):
        training = Training(GPU, recipe, config)
        stepper = Stepper(training.model, training.optimizer, *training.rest, graph=graph)
        results = []
        with torch.cuda.stream(stepper.stream):
            for number in range(8):
                for part in batches(images, recipe, epoch=number, seed=0):
                    stepper.step(len(results), [on(GPU, part, recipe)], 1e-3 / (1 + number), 1000)
                results += stepper.results()
            results += stepper.flush()
        assert [result.step for result in results] == sorted(result.step for result in results)
        sides.append(torch.tensor([result.losses["total"] for result in results]))
        assert bool(stepper._graphs) == graph
    assert len(sides[0]) == 8 * (len(images) // 4)
    assert torch.allclose(sides[0][:12], sides[1][:12], rtol=0.02)
    assert sides[1][-5:].mean() == pytest.approx(sides[0][-5:].mean().item(), rel=0.15)


def test_training_continues_if_no_graph_can_be_captured(images, monkeypatch, caplog):
    def fails(self, parts):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Stepper, "_capture", fails)
    training = Training(GPU)
    stepper = Stepper(training.model, training.optimizer, *training.rest, graph=True)
    with torch.cuda.stream(stepper.stream):
        for number, part in enumerate(batches(images, RECIPE, epoch=0, seed=0)):
            for _ in range(3):
                stepper.step(number, [on(GPU, part)], 1e-3, 1000)
        results = stepper.flush()
    assert all(np.isfinite(result.losses["total"]) for result in results)
    assert caplog.text.count("no CUDA graph of the step (operation not permitted") == 1


@pytest.mark.parametrize("graph", [False, True])
def test_detection_between_epochs_changes_nothing_for_a_graph(images, graph):
    """Detection in images of many sizes drops the priors of the training size from their cache."""
    sides = []
    for between in (False, True):
        training = Training(GPU)
        stepper = Stepper(training.model, training.optimizer, *training.rest, graph=graph)
        results = []
        with torch.cuda.stream(stepper.stream):
            for epoch in range(6):
                for part in batches(images, RECIPE, epoch=epoch, seed=0):
                    stepper.step(len(results), [on(GPU, part)], 1e-3, 1000)
                if between:
                    others = [priors(CONFIG, (64 + side, 64), GPU) for side in range(60)]
                    del others
                    torch.full((2**24,), torch.nan, device=GPU)  # takes the memory that is free now
                results += stepper.flush()
        sides.append(torch.tensor([result.losses["total"] for result in results]))
    assert sides[1].isfinite().all()
    assert torch.allclose(sides[0], sides[1], rtol=0.02)


@pytest.mark.parametrize("graph", [None, False, True])
def test_stop_and_resume_equals_uninterrupted(tiny_data, tmp_path, images, graph):
    """But for the order of sums, which a GPU does not keep."""
    recipe = replace(RECIPE, optimizer=replace(RECIPE.optimizer, lr=0.002, ema=0.9))

    def run(folder, until):
        return list(
            fit.fit(
                CONFIG,
                recipe,
                images,
                tiny_data.holdout,
                workdir=tmp_path / folder,
                device="cuda",
                until=until,
                graph=graph,
            )
        )

    straight = run("a", 3)
    run("b", 1)
    resumed = run("b", 3)
    assert [epoch.epoch for epoch in resumed] == [2, 3]
    for own, other in zip(resumed, straight[1:]):
        assert own.losses["total"] == pytest.approx(other.losses["total"], rel=1e-2)
    assert close(weights(tmp_path / "a"), weights(tmp_path / "b"), 2e-2)
    saved = checkpoint.load(tmp_path / "b" / LAST)
    assert isinstance(saved.state["optimizer"]["param_groups"][0]["lr"], float)
    assert saved.state["averaged"] == 3 * (len(images) // 5)


def test_training_resumes_on_another_device(tmp_path, images):
    for device, until in (("cuda", 1), ("cpu", 2), ("cuda", 3)):
        epochs = list(
            fit.fit(CONFIG, RECIPE, images, None, workdir=tmp_path, device=device, until=until)
        )
        assert [epoch.epoch for epoch in epochs] == [until]


def test_a_loss_that_is_not_finite_is_noticed(tmp_path, images):
    recipe = replace(RECIPE, optimizer=Optimizer(lr=1e30, warmup_epochs=0))
    with pytest.raises(TrainingError, match=r"not finite at epoch 1, step \d of"):
        list(fit.fit(CONFIG, recipe, images, None, workdir=tmp_path, device="cuda"))


@RULES
def test_assignment_equals_the_cpus(batch, rule):
    generator = torch.Generator().manual_seed(0)
    own = priors(CONFIG, (128, 128))
    outputs = {
        "class_logits": torch.randn(5, len(own.anchors), 2, generator=generator),
        "box_deltas": torch.randn(5, len(own.anchors), 4, generator=generator),
        "landmark_deltas": torch.randn(5, len(own.anchors), 10, generator=generator),
    }
    criterion = Criterion(Loss(assignment=rule))
    there = {name: value.to(GPU) for name, value in outputs.items()}
    faces, on_gpu = batch.faces, batch.faces.padded().to(GPU)
    labels, rows = criterion.assign(outputs, faces, own).matches
    found = criterion.assign(there, on_gpu, priors(CONFIG, (128, 128), GPU)).matches
    assert (found.labels.cpu() != labels).float().mean() < 1e-3  # ties may fall otherwise
    both = (labels == 1) & (found.labels.cpu() == 1)
    assert both.any() and (found.faces.cpu()[both] != rows[both]).float().mean() < 1e-2
    losses = criterion(outputs, faces, own)
    others = criterion(there, on_gpu, priors(CONFIG, (128, 128), GPU))
    for name, value in losses.items():
        assert others[name].item() == pytest.approx(value.item(), rel=1e-3), name


@pytest.mark.parametrize("name", ["retinaface_mobile025", "scrfd_0.5g", "yunet_n"])
def test_evaluation_equals_the_cpus(tiny_data, name):
    config, _ = load_preset(name)
    model, settings = build_detector(config).eval(), Evaluation(score_threshold=0.005)
    found = [detect(model, config, tiny_data.val, settings, device) for device in ("cpu", "cuda")]
    for image, own in found[0].items():
        assert len(found[1][image]) == pytest.approx(len(own), abs=0.02 * len(own) + 2)
    aps = [evaluate(model, config, tiny_data.val, settings, device) for device in ("cpu", "cuda")]
    for level, ap in aps[0].items():
        assert aps[1][level] == pytest.approx(ap, abs=1e-3)


def test_a_trained_model_has_the_same_ap_on_both(tmp_path, images):
    """On its training images, where AP is well above that of random weights."""
    recipe = replace(
        RECIPE,
        epochs=60,
        precision="auto",
        size=256,
        augmentation=Augmentation(scales=(1.0,)),
        optimizer=Optimizer(kind="adamw", lr=0.03, schedule="cosine"),
        evaluation=Evaluation(every=0),
    )
    *_, last = fit.fit(CONFIG, recipe, images, images, workdir=tmp_path, device="cuda")
    model = build_detector(CONFIG)
    model.load_state_dict(weights(tmp_path))
    aps = {
        device: evaluate(model, CONFIG, images, Evaluation(), device) for device in ("cpu", "cuda")
    }
    assert last.ap["easy"] > 0.05
    for level, ap in aps["cpu"].items():
        assert aps["cuda"][level] == pytest.approx(ap, abs=1e-3)


def test_latency_is_that_of_the_device():
    heads = replace(CONFIG, head=Head(landmarks=False))
    models = {
        name: build_detector(config).to(GPU) for name, config in (("one", CONFIG), ("two", heads))
    }
    taken = latencies(models, (256, 256), device=GPU)
    assert all(0 < own.median_ms < 1000 for own in taken.values())
    assert torch.cuda.get_device_name() in taken["one"].machine
    assert np.isfinite(taken["one"].spread_ms)
