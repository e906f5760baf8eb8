"""The layout of the class outputs, known here alone: softmax, sigmoid or objectness.

`class_logits` [B, A, 2] are those of background and face, before the softmax; [B, A, 1] that of a
face, before the sigmoid. Beside the latter there may be `objectness` [B, A, 1], before the sigmoid:
the score of a face is then the product of both.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SOFTMAX_CHANNELS = 2


def face_scores(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A] in [0, 1]: probability of a face, times that of an object if predicted."""
    logits = outputs["class_logits"].float()
    softmax = logits.shape[-1] == SOFTMAX_CHANNELS
    scores = (logits.softmax(dim=-1) if softmax else logits.sigmoid())[..., -1]
    if "objectness" in outputs:
        scores = scores * outputs["objectness"].float().sigmoid()[..., 0]
    return scores


def face_logits(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A], the log odds of a face against background by the class alone."""
    logits = outputs["class_logits"].float()
    if logits.shape[-1] == SOFTMAX_CHANNELS:
        return logits[..., 1] - logits[..., 0]
    return logits[..., 0]


def score_logits(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A], the log odds of `face_scores`."""
    logits = face_logits(outputs)
    if "objectness" not in outputs:
        return logits
    objectness = outputs["objectness"].float()[..., 0]
    # (1 - score) / score = e^-a + e^-b + e^-(a+b), exact where a score rounds to 0 or 1
    return -torch.stack((-logits, -objectness, -logits - objectness)).logsumexp(0)


def foreground_name(names: Mapping[str, object]) -> str:
    """The output that learns positive from negative anchors: objectness if predicted."""
    return "objectness" if "objectness" in names else "class_logits"


def foreground_logits(outputs: Mapping[str, Tensor]) -> Tensor:
    """float32 [B, A], the log odds that learn positive from negative anchors."""
    if "objectness" in outputs:
        return outputs["objectness"].float()[..., 0]
    return face_logits(outputs)


def prior_bias(log_odds: float, channels: int) -> tuple[float, ...]:
    """Biases of an anchor's logits that give it these log odds."""
    return (-log_odds / 2, log_odds / 2) if channels == SOFTMAX_CHANNELS else (log_odds,)
