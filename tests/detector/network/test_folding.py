"""Networks whose batch normalisation is folded into the convolutions, against the networks."""

import copy

import pytest
import torch
from torch import nn

from detector.config.presets import load_preset
from detector.network.folding import fold_batchnorm
from detector.network.model import build_detector
from detector.network.modules import ConvUnit


def trained(preset: str) -> nn.Module:
    """A network whose batch normalisation has statistics and weights of its own."""
    torch.manual_seed(0)
    net = build_detector(load_preset(preset)[0]).train()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        net(torch.randint(0, 256, (2, 3, 128, 96), dtype=torch.uint8))
    return net.eval()


@pytest.mark.parametrize(
    "preset",
    ["retinaface_mobile025", "retinaface_resnet18", "scrfd_0.5g", "yunet_n", "tiny_ssd300"],
)
def test_outputs_stay_the_same(preset):
    net = trained(preset)
    before = copy.deepcopy(net.state_dict())
    folded = fold_batchnorm(net)
    units = [unit for unit in folded.modules() if isinstance(unit, ConvUnit)]
    assert not [unit for unit in units if isinstance(getattr(unit, "norm", None), nn.BatchNorm2d)]
    images = torch.randint(0, 256, (2, 3, 96, 160), dtype=torch.uint8)
    with torch.no_grad():
        expected, found = net(images), folded(images)
    for name, values in expected.items():
        assert (found[name] - values).abs().max() < 1e-4 * values.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_network_without_batch_normalisation_is_returned_itself():
    net = fold_batchnorm(trained("yunet_n"))
    assert fold_batchnorm(net) is net
