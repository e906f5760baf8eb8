"""Colour jitter as one affine map of the colours of an image."""

from __future__ import annotations

from itertools import permutations

import cv2
import numpy as np

from detector.config.recipe import Augmentation
from detector.data.random_numbers import COLORS, PERMUTATION, PERMUTE

_GREY = np.array([0.114, 0.587, 0.299])  # BGR weights of BT.601
_PERMUTATIONS = np.array(list(permutations(range(3))))


def sample_colors(settings: Augmentation, numbers: np.ndarray) -> np.ndarray:
    """float64 [B, 3, 4], see `transforms.Transforms.colors`: brightness ±32, contrast and
    saturation × 0.5–1.5 (the ranges of SSD), hue ±`settings.hue`, each with the probability
    `settings.photometric`; then a permutation of the channels.

    All together are one affine map of the colours: saturation scales the distance from grey, hue
    rotates around the grey axis. So contrast may come before or after them: the result is the same.
    """
    own = numbers[:, COLORS]
    on = own[:, :4] < settings.photometric
    brightness = np.where(on[:, 0], 64 * own[:, 4] - 32, 0)
    contrast = np.where(on[:, 1], 0.5 + own[:, 5], 1)[:, None, None]
    saturation = np.where(on[:, 2], 0.5 + own[:, 6], 1)[:, None, None]
    hue = np.where(on[:, 3], 2 * settings.hue * own[:, 7] - settings.hue, 0)
    matrices = contrast * (
        _rotation(np.deg2rad(hue)) @ (saturation * np.eye(3) + (1 - saturation) * _GREY)
    )
    if settings.permute_channels:
        orders = _PERMUTATIONS[(numbers[:, PERMUTATION] * len(_PERMUTATIONS)).astype(int)]
        orders[numbers[:, PERMUTE] >= settings.permute_channels] = range(3)
        matrices = np.take_along_axis(matrices, orders[:, :, None], axis=1)
    offsets = np.broadcast_to(brightness[:, None, None], (len(numbers), 3, 1))
    return np.concatenate([matrices, offsets], axis=2)


def recolor(image: np.ndarray, color: np.ndarray) -> None:
    """Applies one of `sample_colors` to `image` (uint8 [H, W, 3] BGR), in place."""
    if (color[:, :3] == color[0, 0] * np.eye(3)).all():  # a lookup table is faster
        if color[0, 0] == 1 and color[0, 3] == 0:
            return
        table = np.arange(256) * color[0, 0] + color[0, 3]
        cv2.LUT(image, np.rint(table).clip(0, 255).astype(np.uint8), dst=image)
    else:
        cv2.transform(image, color, dst=image)


def _rotation(angle: float | np.ndarray) -> np.ndarray:
    """[..., 3, 3]: rotation of colours around the grey axis (1, 1, 1), by Rodrigues' formula; for 0
    exactly the identity."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cos, sin = np.cos(angle)[..., None, None], np.sin(angle)[..., None, None]
    return cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)
