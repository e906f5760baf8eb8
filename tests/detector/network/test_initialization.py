"""Initial weights of the published detectors, layer by layer, against their own code's rules."""

import math

import pytest
import torch
from torch import nn

from detector.config.recipe import INITIALIZATIONS
from detector.network.initialization import RULES
from detector.network.model import build_detector
from detector.network.modules import ResidualUnit


def convs(model):
    return {k: m for k, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def fans(conv):
    """Of a weight [out, in / groups, k, k], as torch's and mmcv's initialisers count them."""
    out, per_group, height, width = conv.weight.shape
    return per_group * height * width, out * height * width


def check_std(groups):
    """Sample standard deviations of all weights of one expected one, together."""
    for expected, weights in groups.items():
        own = torch.cat(weights)
        tolerance = 5 * expected / math.sqrt(2 * len(own))
        assert own.square().mean().sqrt().item() == pytest.approx(expected, abs=tolerance)


def by_std(named, std_of):
    groups = {}
    for name, conv in named.items():
        groups.setdefault(round(std_of(name, conv), 9), []).append(conv.weight.detach().flatten())
    return groups


def test_every_name_of_a_recipe_has_a_rule():
    assert tuple(RULES) == INITIALIZATIONS


@pytest.mark.parametrize("name", ["scrfd_0.5g", "scrfd_2.5g", "scrfd_34g"])
def test_scrfd(preset, name):
    model = build_detector(preset(name), 1, "scrfd")

    def std(name, conv):
        fan_in, fan_out = fans(conv)
        if name.startswith("backbone"):
            return math.sqrt(2 / fan_out)  # mmcv's kaiming_init: normal, fan_out, ReLU
        if name.startswith("neck"):
            return math.sqrt(2 / (fan_in + fan_out))  # xavier_init
        return 0.01  # normal_init

    named = convs(model)
    check_std(by_std(named, std))
    for key, conv in named.items():
        if key.startswith("neck"):  # uniform
            assert conv.weight.abs().max() <= math.sqrt(6 / sum(fans(conv)))
        if conv.bias is not None:
            face = key.startswith("heads.class_logits")
            assert torch.allclose(conv.bias, torch.tensor(-4.595 if face else 0.0), atol=1e-3)
    blocks = [m for m in model.modules() if isinstance(m, ResidualUnit)]
    assert bool(blocks) == (name != "scrfd_0.5g")
    last = [block.body[-1].norm for block in blocks]
    for norm in model.modules():
        if isinstance(norm, (nn.BatchNorm2d, nn.GroupNorm)):
            assert (norm.weight == (0 if any(norm is own for own in last) else 1)).all()
            assert not norm.bias.any()
    x = torch.rand(2, blocks[0].body[0].conv.in_channels, 8, 8) if blocks else None
    if blocks:  # a block begins as its shortcut
        assert blocks[0](x).equal(torch.relu(blocks[0].shortcut(x)))


@pytest.mark.parametrize("name", ["yunet_n", "yunet_s"])
def test_yunet(preset, name):
    model = build_detector(preset(name), 1, "yunet")
    named = convs(model)
    assert all(conv.bias is not None for conv in named.values())
    check_std(by_std(named, lambda _, conv: math.sqrt(2 / sum(fans(conv)))))  # xavier_normal_
    assert all((conv.bias == 0.02).all() for conv in named.values())


def test_yunets_rule_for_convolutions_without_bias(preset):
    model = build_detector(preset("retinaface_mobile025"), 1, "yunet")
    plain = {k: c for k, c in convs(model).items() if c.bias is None}
    check_std(by_std(plain, lambda *_: 0.01))


@pytest.mark.parametrize("rule", INITIALIZATIONS)
@pytest.mark.parametrize("name", ["retinaface_mobile025", "scrfd_2.5g", "yunet_n", "tiny_ssd300"])
def test_any_rule_initialises_any_design_from_the_seed_alone(preset, name, rule):
    state = build_detector(preset(name), 5, rule).state_dict()
    assert all(value.isfinite().all() for value in state.values())
    again = build_detector(preset(name), 5, rule).state_dict()
    assert all(value.equal(again[key]) for key, value in state.items())
    other = build_detector(preset(name), 6, rule).state_dict()
    assert any(not value.equal(other[key]) for key, value in state.items())
