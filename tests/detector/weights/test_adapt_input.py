"""Weights converted to another normalisation of pixels, for stems with and without a norm."""

import helpers
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from detector.config.detector import Pixels
from detector.weights.files import STEM, adapt_input
from detector.weights.known_files import Weights

THEIRS = Pixels(order="rgb", mean=(120.0, 110.0, 100.0), std=(58.0, 57.0, 56.0))
OURS = Pixels(order="bgr", mean=(0.0, 1.0, 2.0), std=(1.0, 2.0, 4.0))
GENERATOR = torch.Generator().manual_seed(0)


def normalised(bgr: torch.Tensor, pixels: Pixels) -> torch.Tensor:
    values = bgr if pixels.order == "bgr" else bgr.flip(1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (pixels.mean, pixels.std))
    return (values - mean) / std


def weights(state: dict[str, torch.Tensor]) -> Weights:
    return Weights(
        source="w.pt",
        sha256="",
        title="",
        part="detector",
        config=helpers.TINY_DETECTOR,
        state=state,
        pixels=THEIRS,
    )


@pytest.mark.parametrize("last", ["conv.bias", "norm.running_mean"])
def test_the_first_layer_gives_the_same(last):
    kernel = torch.randn(4, 3, 1, 1, generator=GENERATOR)
    state = {f"{STEM}.conv.weight": kernel, f"{STEM}.{last}": torch.zeros(4)}
    bgr = 255 * torch.rand(1, 3, 8, 8, generator=GENERATOR)
    adapted = adapt_input(weights(state), OURS)
    shift = adapted[f"{STEM}.{last}"].view(1, 4, 1, 1) * (1 if last == "conv.bias" else -1)
    found = F.conv2d(normalised(bgr, OURS), adapted[f"{STEM}.conv.weight"]) + shift
    assert_close(found, F.conv2d(normalised(bgr, THEIRS), kernel), rtol=1e-4, atol=1e-4)


def test_another_stem_is_left_to_learn_it():
    """As that of a plugin."""
    state = {"backbone.stages.0.0.0.conv.weight": torch.zeros(4, 3, 3, 3)}
    assert adapt_input(weights(state), OURS) is state
