"""Losses that tell faces from background; each is a sum over anchors, to be divided by `judged`.

All take the log odds of a face [B, A], bool masks [B, A] of positives and negatives (what is
neither is not learnt), and `quality` [B, A] in [0, 1], the IoU of each positive's predicted box, 0
elsewhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.config.recipe import Loss
from detector.losses.selection import chosen

FOCUS = 2.0  # exponent of focal and quality focal loss
FACE_WEIGHT = 0.25  # of positives in focal loss; negatives have the rest


def class_loss(
    logits: Tensor, positive: Tensor, negative: Tensor, quality: Tensor, settings: Loss
) -> Tensor:
    """The loss that `settings.class_loss` names."""
    if settings.class_loss == "ohem":
        return ohem(logits, positive, negative, settings.negatives)
    learnt = chosen(positive | negative)
    if settings.class_loss == "quality_focal":
        terms = quality_focal(learnt.of(logits), learnt.of(quality))
    else:
        wanted = learnt.of(positive).float()
        terms = cross_entropy(learnt.of(logits), wanted)
        if settings.class_loss == "focal":
            terms = terms * focus(learnt.of(logits), wanted)
    return learnt.sum(terms)


def judged(positive: Tensor, settings: Loss) -> Tensor:
    """What the sum is divided by (1 where it is 0): the positives; ohem counts at least one for
    each image, as it takes negatives for one."""
    return (positive.sum(1).clamp(min=1) if settings.class_loss == "ohem" else positive).sum()


def cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Of each log odds against a probability."""
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def focus(logits: Tensor, wanted: Tensor) -> Tensor:
    """Factors that turn cross entropy into focal loss (Lin et al. 2017)."""
    missing = (logits.sigmoid() - wanted).abs()
    return missing.pow(FOCUS) * torch.where(wanted > 0, FACE_WEIGHT, 1 - FACE_WEIGHT)


def quality_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Generalised focal loss against a quality in [0, 1] (Li et al. 2020)."""
    return cross_entropy(logits, wanted) * (logits.sigmoid() - wanted).abs().pow(FOCUS)


def ohem(logits: Tensor, positive: Tensor, negative: Tensor, ratio: float) -> Tensor:
    """Cross entropy over positives and the hardest negatives (SSD, Liu et al. 2016), of which each
    image gives `ratio` for each positive, and as many as for one where it has none; divided by the
    positives counted so."""
    learnt = chosen(positive | _hardest(logits.detach(), positive, negative, ratio))
    return learnt.sum(cross_entropy(learnt.of(logits), learnt.of(positive).float()))


def _hardest(logits: Tensor, positive: Tensor, negative: Tensor, ratio: float) -> Tensor:
    """bool [B, A]: for each image the `ratio` × positives negatives most like a face."""
    wanted = (ratio * positive.sum(1).clamp(min=1)).long()
    wanted = torch.minimum(wanted, negative.sum(1))
    # A GPU ranks all of them: to ask it how many are wanted would be to wait for it.
    most = int(wanted.max()) if logits.device.type == "cpu" else logits.shape[1]
    _, order = logits.masked_fill(~negative, -torch.inf).topk(most, dim=1)
    taken = torch.arange(most, device=logits.device) < wanted[:, None]
    return torch.zeros_like(negative).scatter_(1, order, taken)
