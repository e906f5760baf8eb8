"""Scores and log odds of faces, in closed form, for each layout of the logits."""

import math

import pytest
import torch

from detector.boxes.logits import (
    face_logits,
    face_scores,
    foreground_logits,
    foreground_name,
    prior_bias,
)


def log_odds(probability):
    return math.log(probability / (1 - probability))


SOFTMAX = {"class_logits": torch.tensor([[[1.0, 1.0 + math.log(3)]]])}
SIGMOID = {"class_logits": torch.tensor([[[math.log(3)]]])}
OBJECTNESS = SIGMOID | {"objectness": torch.tensor([[[math.log(4)]]])}


@pytest.mark.parametrize(
    "outputs, score, foreground",
    [(SOFTMAX, 0.75, 3), (SIGMOID, 0.75, 3), (OBJECTNESS, 0.75 * 0.8, 4)],
    ids=["softmax", "sigmoid", "objectness"],
)
def test_layouts(outputs, score, foreground):
    halves = {name: value.bfloat16() for name, value in outputs.items()}
    assert face_scores(outputs).shape == face_logits(outputs).shape == (1, 1)
    assert face_scores(outputs).item() == pytest.approx(score)
    assert face_logits(outputs).item() == pytest.approx(math.log(3))
    assert foreground_logits(outputs).item() == pytest.approx(math.log(foreground))
    for function in (face_scores, face_logits, foreground_logits):
        assert function(halves).dtype == torch.float32


@pytest.mark.parametrize("outputs", [SOFTMAX, SIGMOID, OBJECTNESS])
def test_the_prior_is_the_foreground_probability(outputs):
    name = foreground_name(outputs)
    bias = torch.tensor(prior_bias(log_odds(0.01), outputs[name].shape[-1]))
    biased = outputs | {name: bias.view(1, 1, -1)}
    assert foreground_logits(biased).sigmoid().item() == pytest.approx(0.01)
