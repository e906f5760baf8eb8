"""Class losses against loops and torchvision, and what all of them guarantee."""

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from detector.config.recipe import Loss
from detector.losses.class_losses import count_positives, quality_focal
from detector.losses.tables import CLASS_LOSSES

KINDS = tuple(CLASS_LOSSES)


def class_loss(logits, positive, negative, quality, settings):
    loss = CLASS_LOSSES[settings.class_loss].loss
    return loss(logits, positive, negative, quality, settings)


def scene(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 40, generator=generator, dtype=torch.float64) * 2
    labels = torch.rand(3, 40, generator=generator)
    positive = labels > 0.9
    positive[1] = False  # an image without faces
    negative = ~positive & (labels > 0.1)
    quality = torch.rand(3, 40, generator=generator, dtype=torch.float64) * positive
    return logits, positive, negative, quality


def slow(kind, logits, positive, negative, quality, settings):
    total, counted, qualities = 0.0, 0, iter(quality[positive].tolist())
    for row, is_positive, is_negative in zip(logits.tolist(), positive, negative):
        terms, own = [], 0
        for logit, face, background in zip(row, is_positive, is_negative):
            if not (face or background):
                continue
            p = 1 / (1 + math.exp(-logit))
            target = next(qualities) if face else 0.0
            own += bool(face)
            if kind == "quality_focal":
                total -= abs(p - target) ** 2 * (
                    target * math.log(p) + (1 - target) * math.log(1 - p)
                )
            elif kind == "focal":
                total -= (
                    0.25 * (1 - p) ** 2 * math.log(p) if face else 0.75 * p**2 * math.log(1 - p)
                )
            elif face or kind == "cross_entropy":
                total -= math.log(p if face else 1 - p)
            else:
                terms.append(-math.log(1 - p))
        if kind == "ohem":
            least = 1 if settings.min_positives is None else settings.min_positives
            total += sum(sorted(terms)[::-1][: int(settings.negatives * max(own, least))])
        else:
            least = settings.min_positives or 0
        counted += max(own, least)
    return total / counted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("least", [None, 0, 1, 2])
def test_equals_loops(kind, seed, least):
    settings = Loss(class_loss=kind, negatives=3, min_positives=least)
    loss = class_loss(*scene(seed), settings) / count_positives(scene(seed)[1], settings)
    assert loss.item() == pytest.approx(slow(kind, *scene(seed), settings), rel=1e-6)


def test_focal_is_torchvisions():
    logits, positive, negative, quality = scene()
    learnt = positive | negative
    expected = sigmoid_focal_loss(logits[learnt], positive[learnt].double(), reduction="sum")
    loss = class_loss(logits, positive, negative, quality, Loss(class_loss="focal"))
    assert loss.item() == pytest.approx(expected.item())


def test_quality_focal_is_least_at_the_quality():
    quality = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)
    at = quality.clamp(1e-6).logit().requires_grad_()
    quality_focal(at, quality).sum().backward()
    assert at.grad.abs().max() < 1e-5
    assert (quality_focal(at + 0.5, quality) > quality_focal(at, quality)).all()
    assert (quality_focal(at - 0.5, quality) >= quality_focal(at, quality) - 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_anchors_are_not_learnt(kind):
    logits, positive, negative, quality = scene()
    logits.requires_grad_()
    class_loss(logits, positive, negative, quality, Loss(class_loss=kind)).backward()
    assert not logits.grad[~(positive | negative)].any()
    assert (logits.grad[negative] >= 0).all()  # background is pushed down


@pytest.mark.parametrize("kind", KINDS)
def test_no_positives_and_nothing_at_all_are_finite(kind):
    logits, positive, negative, quality = scene()
    nothing = torch.zeros_like(positive)
    settings = Loss(class_loss=kind)
    assert class_loss(logits, nothing, negative, quality * 0, settings) > 0
    assert class_loss(logits, nothing, nothing, quality * 0, settings) == 0


def test_retinaface_learns_no_negatives_of_an_image_without_positives():
    logits, positive, negative, quality = scene()
    logits.requires_grad_()
    settings = Loss(class_loss="ohem", min_positives=0)
    class_loss(logits, positive, negative, quality, settings).backward()
    assert not logits.grad[1].any() and logits.grad[0].any()
    assert count_positives(positive, settings) == positive.sum()
    nothing = torch.zeros_like(positive)
    assert class_loss(logits, nothing, negative, quality * 0, settings) == 0
