"""A training step of the baseline against plain float32 NCHW, in the same run on one thread."""

import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from detector.boxes.anchors import priors
from detector.config.detector import Detector
from detector.config.recipe import Optimizer, Recipe
from detector.data.loader import Batch
from detector.losses.criterion import Criterion
from detector.network.model import build_detector
from detector.training.ema import ModelEMA
from detector.training.optim import make_optimizer
from detector.training.step import Precision, fast_bf16, memory_format, train_step

PRESETS = Path(__file__).resolve().parents[2] / "search_spaces" / "presets"
CPU = torch.device("cpu")
BATCH, REPEATS = 8, 7

pytestmark = pytest.mark.benchmark


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def baseline():
    preset = yaml.safe_load((PRESETS / "retinaface_mobile025.yaml").read_text())
    return Detector.from_dict(preset["detector"])


def random_batch(size):
    """Random images with twelve faces each, as in WIDER FACE, most of them small."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, size, size, 3), dtype=torch.uint8, generator=generator)
    targets = []
    for _ in range(BATCH):
        side = 6 + size * 0.3 * torch.rand(12, 1, generator=generator) ** 3
        corner = torch.rand(12, 2, generator=generator) * (size - side)
        boxes = torch.cat((corner, corner + side), 1)
        points = torch.rand(12, 5, 2, generator=generator) * side[:, None] + corner[:, None]
        targets.append(
            {"boxes": boxes, "landmarks": points, "ignore": torch.zeros(12, dtype=torch.bool)}
        )
    return Batch(images.permute(0, 3, 1, 2), targets)


def step_arguments(config, recipe, batch) -> tuple:
    """Arguments of `train_step` for a new network."""
    model = build_detector(config).to(memory_format=memory_format(recipe))
    optimizer = make_optimizer(model, recipe.optimizer)
    return model, optimizer, batch, config, recipe, Precision(recipe, CPU)


@pytest.mark.parametrize("size", [320, 640])
def test_step_takes_three_quarters_of_plain_float32(baseline, size, record_property):
    if not fast_bf16(CPU):
        pytest.skip("this CPU has no bf16 instructions")
    batch = random_batch(size)
    contenders = []
    for kind in ("auto", "fp32"):
        recipe = Recipe(size=size, batch_size=BATCH, precision=kind, optimizer=Optimizer(lr=1e-4))
        contenders.append(step_arguments(baseline, recipe, batch))
    times = ([], [])
    for repeat in range(REPEATS + 2):
        for contender, taken in zip(contenders, times):  # in turns, so that noise affects all alike
            start = time.process_time()
            train_step(*contender)
            if repeat >= 2:
                taken.append(time.process_time() - start)
    fast, plain = map(statistics.median, times)
    record_property("ratio", fast / plain)
    print(
        f"\n{size} px, batch {BATCH}: {1e3 * fast:.0f} ms, plain {1e3 * plain:.0f} ms, "
        f"ratio {fast / plain:.2f}"
    )
    assert fast <= 0.75 * plain


@pytest.mark.parametrize("size", [320, 640])
def test_matching_and_losses_are_a_twentieth_of_a_step(baseline, size):
    batch, recipe = random_batch(size), Recipe(size=size, batch_size=BATCH)
    recipe = replace(recipe, optimizer=Optimizer(lr=1e-4))
    model = build_detector(baseline).to(memory_format=memory_format(recipe))
    optimizer, precision = make_optimizer(model, recipe.optimizer), Precision(recipe, CPU)
    boxes = priors(baseline, (size, size))
    with torch.no_grad(), precision.autocast:
        outputs = model(batch.images)
    whole, part = [], []
    for repeat in range(REPEATS + 2):
        start = time.process_time()
        train_step(model, optimizer, batch, baseline, recipe, precision)
        middle = time.process_time()
        leaves = {name: value.clone().requires_grad_() for name, value in outputs.items()}
        Criterion(recipe.loss)(leaves, batch.targets, boxes)["total"].backward()
        if repeat >= 2:
            whole.append(middle - start)
            part.append(time.process_time() - middle)
    share = statistics.median(part) / statistics.median(whole)
    print(f"\n{size} px: matching and losses {1e3 * statistics.median(part):.1f} ms, {share:.1%}")
    assert share <= 0.05


def test_an_ema_of_the_weights_costs_at_most_a_tenth_of_a_step(baseline):
    batch, size = random_batch(320), 320
    plain = Recipe(size=size, batch_size=BATCH, optimizer=Optimizer(lr=1e-4))
    contenders = []
    for recipe in (plain, plain, replace(plain, accumulate=4)):
        contenders.append(step_arguments(baseline, recipe, batch))
    average = ModelEMA(contenders[1][0], 0.999)
    times = ([], [], [])
    for repeat in range(REPEATS + 2):
        for index, contender in enumerate(contenders):  # in turns, so that noise affects all alike
            start = time.process_time()
            train_step(*contender)
            if index == 1:
                average.update(contender[0])
            if repeat >= 2:
                times[index].append(time.process_time() - start)
    alone, ema, parts = map(statistics.median, times)
    print(
        f"\n{size} px, batch {BATCH}: {1e3 * alone:.0f} ms, with an average of the weights "
        f"{ema / alone:.2f} of that, in 4 parts {parts / alone:.2f}"
    )
    assert ema <= 1.1 * alone
