"""RetinaFace's losses and gradients, as its own code computes them.

The numbers were recorded from biubug6/Pytorch_Retinaface (layers/modules/multibox_loss.py, its
settings for mobile0.25) on the outputs and faces below.
"""

import pytest
import torch

from detector.boxes.anchors import priors
from detector.config.presets import load_preset
from detector.losses.criterion import Criterion

SIZE = 160
BOXES = [
    [[12, 20, 44, 60], [70, 66, 110, 120], [100, 10, 118, 30]],
    [[30, 30, 142, 150]],
    [[8, 90, 26, 112], [60, 20, 100, 70]],
]
LOSSES = {"box": 4.67425012588501, "class": 15.71219253540039, "landmark": 17.850492477416992}
GRADIENT_NORMS = {
    "class_logits": 0.36693355441093445,
    "box_deltas": 0.3769834339618683,
    "landmark_deltas": 0.4231792986392975,
}


def targets():
    """The first face of each image has landmarks."""
    result = []
    for boxes in map(torch.tensor, BOXES):
        boxes = boxes.float()
        landmarks = torch.full((len(boxes), 5, 2), torch.nan)
        landmarks[0] = boxes[0, :2] + (boxes[0, 2:] - boxes[0, :2]) * torch.tensor(
            [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]
        )
        result.append(
            {
                "boxes": boxes,
                "landmarks": landmarks,
                "ignore": torch.zeros(len(boxes), dtype=torch.bool),
            }
        )
    return result


def test_losses_and_gradients_are_the_peers():
    config, recipe = load_preset("retinaface_mobile025")
    own, generator = priors(config, (SIZE, SIZE)), torch.Generator().manual_seed(0)
    outputs = {
        name: torch.randn(3, len(own.anchors), count, generator=generator).requires_grad_()
        for name, count in (("class_logits", 2), ("box_deltas", 4), ("landmark_deltas", 10))
    }
    losses = Criterion(recipe.loss)(outputs, targets(), own)
    total = losses.pop("total")
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(LOSSES, rel=1e-5)
    total.backward()
    assert {name: value.grad.norm().item() for name, value in outputs.items()} == pytest.approx(
        GRADIENT_NORMS, rel=1e-5
    )
