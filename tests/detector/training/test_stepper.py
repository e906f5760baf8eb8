"""Steps as the training takes them, as far as a CPU can tell; test_gpu.py has the graphs."""

from contextlib import contextmanager
from dataclasses import replace

import helpers
import pytest
import torch

from detector.boxes import anchors
from detector.config.detector import Anchors, Backbone, Context, Detector, Neck
from detector.config.recipe import Optimizer, Recipe
from detector.data.loader import batches
from detector.network.model import build_detector
from detector.training.optim import make_optimizer
from detector.training.step import Precision, load_teacher, train_step
from detector.training.stepper import Stepper

CONFIG = Detector(
    backbone=Backbone(
        kind="mobilenet_v1", stem=8, widths=(8, 16, 16, 32, 32), depths=(1, 1, 1, 1, 1)
    ),
    neck=Neck(levels=(3, 4, 5), width=16),
    context=Context(kind="none"),
)
RECIPE = Recipe(size=64, batch_size=5, precision="fp32", optimizer=Optimizer(lr=0.01))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def some(tiny_data):
    return list(batches(tiny_data.train, RECIPE, epoch=1, seed=0))


def make(recipe=RECIPE):
    model = build_detector(CONFIG)
    parts = CONFIG, recipe, Precision(recipe, CPU)
    return model, make_optimizer(model, recipe.optimizer), parts


def on_cpu(batch):
    return [batch.to(CPU, torch.contiguous_format)]


def test_results_are_in_order_and_those_of_train_step(some):
    model, optimizer, rest = make()
    stepper, results = Stepper(model, optimizer, *rest), []
    for number, batch in enumerate(some):
        stepper.step(number, on_cpu(batch), 0.01, remaining=9)
        results += stepper.results()
    assert [result.step for result in results] == list(range(len(some)))
    assert stepper.flush() == [] and all(result.scale is None for result in results)
    model, optimizer, rest = make()
    assert [result.losses for result in results] == [
        train_step(model, optimizer, batch, *rest) for batch in some
    ]


def test_the_scale_of_fp16_is_separate_from_the_losses(some):
    recipe = Recipe(size=64, batch_size=5, precision="fp16")
    model, optimizer, rest = make(recipe)
    stepper = Stepper(model, optimizer, *rest)
    stepper.step(0, on_cpu(some[0]), 0.001, remaining=1)
    (result,) = stepper.flush()
    assert result.scale in (2.0**16, 2.0**15) and "scale" not in result.losses


def test_training_continues_if_no_graph_can_be_captured(some, monkeypatch, caplog):
    def fails(self, parts):
        raise error

    model, optimizer, rest = make()
    stepper = Stepper(model, optimizer, *rest)
    monkeypatch.setattr(Stepper, "_capture", fails)
    error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):  # not for graphs to answer
        stepper._replay(on_cpu(some[0]))
    error = RuntimeError("operation not permitted\nwhen stream is capturing")
    assert stepper._replay(on_cpu(some[0])).isfinite().all()
    (message,) = caplog.messages
    assert "\n" not in message and "no CUDA graph of the step (operation not permitted" in message
    assert stepper._mode(1000) == "eager"


@pytest.mark.parametrize("taught", [False, True])
def test_anchors_are_computed_before_a_capture(some, monkeypatch, tmp_path, taught):
    """In which they cannot be copied to the GPU; an evaluation may have dropped them."""

    @contextmanager
    def graph(*_, **__):
        before = anchors._cached.cache_info().misses
        yield
        assert anchors._cached.cache_info().misses == before

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: 0)
    teacher = None
    if taught:
        design = replace(CONFIG, anchors=Anchors(sizes=((16.0,), (32.0,), (64.0,))))
        teacher = load_teacher(helpers.teacher_file(tmp_path, design), CONFIG, RECIPE, CPU)
    model, optimizer, rest = make()
    stepper = Stepper(model, optimizer, *rest, teacher=teacher)
    anchors._cached.cache_clear()
    captured = stepper._capture(on_cpu(some[0]))
    assert len(captured.anchors) == (2 if taught else 1)
