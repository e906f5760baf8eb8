"""Textured backgrounds of the drawn scenes."""

from __future__ import annotations

import cv2
import numpy as np


def background(style: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3] BGR of (width, height) px; `style` is a key of BACKGROUNDS."""
    return BACKGROUNDS[style](size, rng)


def clouds(size: tuple[int, int], rng: np.random.Generator, octaves: int = 5) -> np.ndarray:
    """float32 [H, W] around 0.5: value noise, octaves of decreasing size and amplitude."""
    total: np.ndarray = np.zeros((3, 3), np.float32)
    for octave in range(octaves):  # each added to the enlarged sum of the coarser ones
        side = 3 * 2**octave
        noise = (rng.random((side, side), np.float32) - 0.5) * 0.8 * 0.6**octave
        total = cv2.resize(total, (side, side), interpolation=cv2.INTER_LINEAR) + noise
    return cv2.resize(total, size, interpolation=cv2.INTER_CUBIC) + 0.5


def mix(share: np.ndarray, first, second) -> np.ndarray:
    """uint8 [H, W, 3]: a blend of two colours, `first` where the share is 0, `second` where 1."""
    steps = np.linspace(0, 1, 256)[:, None]
    table = (first + steps * (np.asarray(second) - first)).clip(0, 255).astype(np.uint8)
    level = cv2.convertScaleAbs(np.maximum(share, 0), alpha=255)
    return cv2.LUT(cv2.merge([level] * 3), table[None])


def tones(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """float [count, 3]: colours of low, high or no saturation, as of walls and clothes."""
    grey = rng.uniform(low, high, (count, 1))
    return grey + rng.uniform(0, 0.8, (count, 1)) * (rng.uniform(low, high, (count, 3)) - grey)


def ramp(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """float32 [H, W]: a gradient from 0 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = (
        np.linspace(-1, 1, size[0], dtype=np.float32),
        np.linspace(-1, 1, size[1], dtype=np.float32),
    )
    share = 0.5 + 0.35 * (x[None] * np.cos(angle) + y[:, None] * np.sin(angle))
    return share.astype(np.float32)


def _gradient(size, rng):
    share = ramp(size, rng) + 0.3 * (clouds(size, rng) - 0.5)
    return mix(share, *tones(rng, 2, 40, 230))


def _noise(size, rng):
    picture = mix(clouds(size, rng) * 1.4 - 0.2, *tones(rng, 2, 20, 200))
    for x, y in rng.random((60, 2)) * size:  # a crowd's clothes, far away
        radius = int(rng.integers(3, 14))
        cv2.circle(
            picture, (int(x), int(y)), radius, tones(rng, 1, 10, 240)[0].tolist(), -1, cv2.LINE_AA
        )
    return cv2.GaussianBlur(picture, (0, 0), 1.5)


def _blocks(size, rng):
    picture = mix(ramp(size, rng), *tones(rng, 2, 60, 230))
    for _ in range(int(rng.integers(4, 9))):
        x, y = (rng.random(2) * size).astype(int).tolist()
        w, h = rng.integers(30, 130, 2).tolist()
        colour = tones(rng, 1, 30, 220)[0]
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour.tolist(), -1)
        step, hole = int(rng.integers(10, 24)), (colour * rng.uniform(0.3, 1.4)).clip(0, 255)
        for a in range(x + 4, x + w - 6, step):
            for b in range(y + 4, y + h - 6, step):
                cv2.rectangle(picture, (a, b), (a + step // 2, b + step // 2), hole.tolist(), -1)
    grain = 0.75 + 0.5 * clouds(size, rng)
    return (picture * grain[..., None]).clip(0, 255).astype(np.uint8)


def _dark(size, rng):
    picture = mix(clouds(size, rng), rng.uniform(20, 90, 3), rng.uniform(60, 190, 3))
    for x, y in rng.random((int(rng.integers(4, 16)), 2)) * size:  # lamps out of focus
        cv2.circle(
            picture,
            (int(x), int(y)),
            int(rng.integers(3, 16)),
            rng.uniform(120, 255, 3).tolist(),
            -1,
            cv2.LINE_AA,
        )
    return cv2.GaussianBlur(picture, (0, 0), 2)


def _stripes(size, rng):
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 50)
    x, y = np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32)
    phase = (x[None] * np.cos(angle) + y[:, None] * np.sin(angle)) * (2 * np.pi / period)
    share = 0.5 + 0.5 * np.tanh(rng.uniform(0.5, 4) * np.sin(phase + 2 * clouds(size, rng, 2)))
    share = 0.6 * share.astype(np.float32) + 0.4 * clouds(size, rng)
    return mix(share, *tones(rng, 2, 20, 230))


def _leaves(size, rng):
    picture = mix(clouds(size, rng), (40, 90, 50), (150, 190, 150))
    count = 160
    positions, tones = rng.random((count, 2)) * size, rng.uniform(0.4, 1.3, count)
    axes, angles = rng.integers(2, 12, (count, 2)), rng.integers(0, 180, count)
    for (x, y), tone, (a, b), angle in zip(positions, tones, axes.tolist(), angles.tolist()):
        colour = np.array((60, 140, 90)) * tone
        cv2.ellipse(
            picture, (int(x), int(y)), (a, b), angle, 0, 360, colour.tolist(), -1, cv2.LINE_AA
        )
    return picture


BACKGROUNDS = {
    "gradient": _gradient,
    "noise": _noise,
    "blocks": _blocks,
    "dark": _dark,
    "stripes": _stripes,
    "leaves": _leaves,
}
