"""Losses that separate faces from background: cross entropy, OHEM, focal, quality focal loss.

Each is a sum over positive and negative anchors (ignored ones take no part), to be divided by its
normalizer, and takes

    logits: [B, A], log odds of a face.
    positive, negative: bool [B, A].
    quality: [B, A] in [0, 1], the IoU of each positive's predicted box; 0 elsewhere.
    settings: of the recipe.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.config.recipe import Loss
from detector.losses.selection import select

GAMMA = 2.0  # focusing exponent of focal and quality focal loss
ALPHA = 0.25  # weight of positives in focal loss; that of negatives is the rest


def cross_entropy_loss(
    logits: Tensor, positive: Tensor, negative: Tensor, quality: Tensor, settings: Loss
) -> Tensor:
    """Binary cross entropy over all anchors."""
    learnt = select(positive | negative)
    return learnt.sum(cross_entropy(learnt.gather(logits), learnt.gather(positive).float()))


def ohem_loss(
    logits: Tensor, positive: Tensor, negative: Tensor, quality: Tensor, settings: Loss
) -> Tensor:
    """Cross entropy with online hard example mining (SSD, Liu et al. 2016): over the positives and,
    of each image, the hardest negatives, `settings.negatives` for each positive, and at least as
    many as for `settings.min_positives` (None means 1)."""
    learnt = select(positive | _hardest(logits.detach(), positive, negative, settings))
    return learnt.sum(cross_entropy(learnt.gather(logits), learnt.gather(positive).float()))


def focal_loss(
    logits: Tensor, positive: Tensor, negative: Tensor, quality: Tensor, settings: Loss
) -> Tensor:
    """Focal loss (Lin et al. 2017) over all anchors."""
    learnt = select(positive | negative)
    logits, target = learnt.gather(logits), learnt.gather(positive).float()
    error = (logits.sigmoid() - target).abs()
    weights = error.pow(GAMMA) * torch.where(target > 0, ALPHA, 1 - ALPHA)
    return learnt.sum(cross_entropy(logits, target) * weights)


def quality_focal_loss(
    logits: Tensor, positive: Tensor, negative: Tensor, quality: Tensor, settings: Loss
) -> Tensor:
    """Quality focal loss of generalised focal loss (Li et al. 2020) over all anchors: positives
    learn the IoU of their predicted boxes."""
    learnt = select(positive | negative)
    return learnt.sum(quality_focal(learnt.gather(logits), learnt.gather(quality)))


def count_positives(positive: Tensor, settings: Loss) -> Tensor:
    """The normalizer of all class losses: the positives of the batch, at least
    `settings.min_positives` for each image."""
    return _counts(positive, settings).sum()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of each of the log odds against a probability."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def quality_focal(logits: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss of each of the log odds against a quality in [0, 1]."""
    return cross_entropy(logits, quality) * (logits.sigmoid() - quality).abs().pow(GAMMA)


def _counts(positive: Tensor, settings: Loss) -> Tensor:
    """int64 [B]: positives of each image, as `settings.min_positives` counts them."""
    least = settings.min_positives
    if least is None:
        least = 1 if settings.class_loss == "ohem" else 0
    return positive.sum(1).clamp(min=least)


def _hardest(logits: Tensor, positive: Tensor, negative: Tensor, settings: Loss) -> Tensor:
    """bool [B, A]: of each image the negatives of highest log odds, as many as OHEM learns."""
    counts = (settings.negatives * _counts(positive, settings)).long()
    counts = torch.minimum(counts, negative.sum(1))
    # A GPU ranks all of them: asking it for the largest count would mean waiting for it.
    most = int(counts.max()) if logits.device.type == "cpu" else logits.shape[1]
    _, order = logits.masked_fill(~negative, -torch.inf).topk(most, dim=1)
    hardest = torch.arange(most, device=logits.device) < counts[:, None]
    return torch.zeros_like(negative).scatter_(1, order, hardest)
