"""The running average of weights in closed form."""

import pytest
import torch
from torch import nn

from detector.training.ema import ModelEMA


def test_the_average_is_the_weighted_sum_of_all_weights():
    """After n updates w_t has the share (1 - d_t) × d_(t+1) × … × d_n, where d_1 is 0."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = ModelEMA(model, 0.6)
    history, generator = [], torch.Generator().manual_seed(0)
    for _ in range(30):
        with torch.no_grad():
            for p in (*model.parameters(), model[1].running_mean):
                p.copy_(torch.randn(p.shape, generator=generator))
        history.append(model[0].weight.detach().double().clone())
        average.update(model)
    wanted = torch.zeros_like(history[0])
    for t, weight in enumerate(history, 1):
        decay = 0.0 if t == 1 else min(0.6, t / (9 + t))
        wanted = decay * wanted + (1 - decay) * weight
    assert torch.allclose(average.module[0].weight.double(), wanted, atol=1e-6)
    assert average.module[1].running_mean.equal(model[1].running_mean)
    assert not average.module[1].weight.equal(model[1].weight)


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_of_equal_weights_it_is_that_weight(decay):
    model = nn.Linear(3, 3)
    average = ModelEMA(model, decay)
    for _ in range(5):
        average.update(model)
    assert torch.allclose(average.module.weight, model.weight)
