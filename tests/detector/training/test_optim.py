"""The learning rate in closed form; what is decayed."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from detector.config.recipe import Optimizer, Recipe
from detector.training.optim import lr_at, make_optimizer


def recipe(**settings):
    return Recipe(epochs=100, optimizer=Optimizer(lr=0.1, **settings))


def test_warm_up_rises_linearly_to_lr():
    r = recipe(warmup_epochs=0.5)
    assert lr_at(0, 20, r) == pytest.approx(1e-4)
    assert lr_at(5, 20, r) == pytest.approx((1e-4 + 0.1) / 2)
    assert lr_at(10, 20, r) == pytest.approx(0.1)


def test_steps_of_retinaface():
    r = Recipe(epochs=250, optimizer=Optimizer(lr=1e-3))
    assert [lr_at(10 * e, 10, r) for e in (1, 189, 190, 219, 220, 249)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    )


def test_cosine_falls_to_one_percent():
    r = recipe(schedule="cosine", warmup_epochs=1)
    rates = [lr_at(step, 7, r) for step in range(700)]
    assert rates[7] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.001)
    assert rates[7 + 346] == pytest.approx((0.1 + 0.001) / 2)
    assert all(a >= b for a, b in pairwise(rates[7:]))


def test_no_warm_up_and_nothing_but_warm_up():
    assert lr_at(0, 5, recipe(warmup_epochs=0)) == pytest.approx(0.1)
    r = recipe(warmup_epochs=1000, schedule="cosine")
    assert lr_at(250, 5, r) == pytest.approx((1e-4 + 0.1) / 2)
    assert lr_at(0, 1, Recipe(epochs=1, optimizer=Optimizer(schedule="cosine"))) > 0


def test_decay_spares_biases_and_normalisation():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = make_optimizer(model, Optimizer(lr=1.0, momentum=0.0, weight_decay=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    after = list(model.parameters())
    assert torch.allclose(after[0], before[0] * 0.9)
    assert all(a.equal(b) for a, b in zip(after[1:], before[1:]))


def test_decay_falls_on_biases_and_normalisation_if_so_set():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    settings = Optimizer(lr=1.0, momentum=0.0, weight_decay=0.1, decay_norms=True)
    optimizer = make_optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert all(torch.allclose(a, b * 0.9) for a, b in zip(model.parameters(), before))


def test_adamw_has_its_own_averages():
    model = nn.Conv2d(3, 4, 3)
    optimizer = make_optimizer(model, Optimizer(kind="adamw", lr=0.01, momentum=0.8))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [g["betas"][0] for g in optimizer.param_groups] == [0.8, 0.8]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [5e-4, 0.0]
    model(torch.ones(1, 3, 5, 5)).sum().backward()
    before = model.bias.detach().clone()
    optimizer.step()  # the first step of Adam moves each weight by lr
    assert torch.allclose((model.bias - before).abs(), torch.full((4,), 0.01), rtol=1e-3)
