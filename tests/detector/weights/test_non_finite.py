"""Weights that contain NaN or infinity are refused wherever weights are loaded."""

import helpers
import pytest
import torch

from detector.config.recipe import Recipe
from detector.network.model import build_detector
from detector.weights import checkpoint
from detector.weights.files import load_weights
from detector.weights.initialize import find_pretrained
from nas.models.model_folder import load_model

DESIGN = helpers.TINY_DETECTOR
WEIGHT = "backbone.stages.0.0.conv.weight"


@pytest.fixture(params=[(WEIGHT, "nan"), ("neck.merges.1.norm.running_var", "inf")])
def spoiled(request):
    """A network with one value that is not finite, and the name of its tensor."""
    name, value = request.param
    net = build_detector(DESIGN)
    net.state_dict()[name].flatten()[0] = float(value)
    return net, name


def test_checkpoints(spoiled, tmp_path):
    net, name = spoiled
    path = tmp_path / "last.pt"
    checkpoint.save(path, net, DESIGN, Recipe(), {})
    readers = (
        checkpoint.load,
        load_model,
        lambda path: load_weights(build_detector(DESIGN), DESIGN, str(path)),
        lambda path: find_pretrained(DESIGN, str(path)),
    )
    for read in readers:
        with pytest.raises(checkpoint.NonFiniteWeights) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: {name} contains NaN or infinity")
        assert "--preset" not in str(error.value)


def test_weights_of_other_programs(spoiled, tmp_path):
    net, name = spoiled
    path = tmp_path / "weights.pth"
    torch.save(net.state_dict(), path)
    with pytest.raises(checkpoint.NonFiniteWeights, match=name):
        load_weights(build_detector(DESIGN), DESIGN, str(path))


def test_the_model_behind_an_average_counts_too(spoiled, tmp_path):
    """Its average may still be finite, but a training could not be resumed."""
    net, name = spoiled
    path = tmp_path / "last.pt"
    state = {"model": net.state_dict(), "history": []}
    checkpoint.save(path, build_detector(DESIGN), DESIGN, Recipe(), state)
    with pytest.raises(checkpoint.NonFiniteWeights, match=name):
        checkpoint.load(path)
