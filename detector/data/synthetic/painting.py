"""Paints drawn scenes: background, faces, distractors, and the camera's blur and noise."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detector.data.synthetic.backgrounds import background
from detector.data.synthetic.faces import HAIR, SKIN, blend_colors, paint_body, paint_face
from detector.data.synthetic.objects import POINTS, Distractor, Face
from detector.data.synthetic.patch import Patch, block, oval


def paint(
    size: tuple[int, int],
    style: str,
    items: Sequence[Face | Distractor],
    rng: np.random.Generator,
) -> np.ndarray:
    """uint8 [H, W, 3] BGR of (width, height) px: a background, and the items in order in front."""
    image = background(style, size, rng)
    light = rng.uniform(-1, 1), rng.uniform(-1, 0.4)
    for item in items:
        if isinstance(item, Face):
            paint_face(image, item, light, rng)
        else:
            _paint_distractor(image, item, light, rng)
    return _expose(image, style, rng)


def _expose(image: np.ndarray, style: str, rng: np.random.Generator) -> np.ndarray:
    """The camera: exposure, coloured light, blur and noise."""
    height, width = image.shape[:2]
    gain = rng.uniform(0.75, 1.1, 3) * (rng.uniform(0.4, 0.65) if style == "dark" else 1.0)
    if style == "stripes":
        gain *= rng.uniform(0.5, 1.15, 3)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.45, 1.1))
    lit = cv2.LUT(image, (np.arange(256)[:, None] * gain).clip(0, 255).astype(np.uint8)[None])
    noise = rng.standard_normal((height, width), np.float32) * rng.uniform(1, 5)
    return cv2.add(lit, cv2.merge([noise] * 3), dtype=cv2.CV_8U)


def _paint_distractor(
    image: np.ndarray, distractor: Distractor, light, rng: np.random.Generator
) -> None:
    skin = blend_colors(SKIN, rng)
    color = skin if rng.random() < 0.4 else rng.uniform(30, 230, 3)
    patch = Patch(distractor.x, distractor.y, distractor.height / 2, (2.0, 1.3, 2.5), color * 0.8)

    def spot(x, y, rx, ry, shade):
        patch.polygon(oval(x, y, rx, ry), shade)

    if distractor.kind == "ball":
        spot(0, 0, 1, 1, color)
        spot(0.35 * light[0], 0.35 * light[1], 0.35, 0.35, color * 1.25)
        patch.soften(0.15)
    elif distractor.kind == "blank":  # a head from behind, or an egg
        if rng.random() < 0.6:
            paint_body(patch, skin, rng.uniform(20, 235, 3), rng)
        spot(0, 0, rng.uniform(0.7, 0.8), 1, skin)
        if rng.random() < 0.6:
            spot(0, -0.1, 0.84, 0.95, blend_colors(HAIR, rng))
        patch.soften(0.07)
    elif distractor.kind == "clock":
        spot(0, 0, 1, 1, (60, 60, 60))
        spot(0, 0, 0.88, 0.88, (215, 225, 230))
        for angle in np.arange(12) * np.pi / 6:
            ray = np.array([np.cos(angle), np.sin(angle)])
            patch.line(np.stack([0.7 * ray, 0.82 * ray]), (30, 30, 30), 0.06)
        for length in (0.45, 0.68):
            angle = rng.uniform(0, 2 * np.pi)
            patch.line(
                np.array([(0, 0), (length * np.cos(angle), length * np.sin(angle))]),
                (20, 20, 20),
                0.08,
            )
    elif distractor.kind == "button":
        spot(0, 0, 1, 1, color * 0.7)
        spot(0, 0, 0.85, 0.85, color)
        for x in (-0.27, 0.27):
            for y in (-0.27, 0.27):
                spot(x, y, 0.12, 0.12, (20, 20, 20))
    elif distractor.kind == "window":  # a house front, or a radio: two holes over a slit
        patch.polygon(block(-0.8, -1, 0.8, 1), color)
        for x in (-0.35, 0.35):
            patch.polygon(block(x - 0.2, -0.45, x + 0.2, 0), color * 0.25)
        patch.polygon(block(-0.4, 0.45, 0.4, 0.65), color * 0.3)
    else:  # the parts of a face, each in a wrong place
        spot(0, 0, 0.78, 1, skin)
        for x, y in rng.permutation(np.vstack([POINTS[:3], (0, 0.6), (0, -0.6)]))[:3]:
            spot(x, y, 0.15, 0.07, (225, 228, 232))
            spot(x, y, 0.07, 0.07, (25, 25, 25))
        spot(rng.uniform(-0.3, 0.3), rng.choice((-0.65, 0.1)), 0.28, 0.08, skin * (0.5, 0.5, 0.85))
    patch.shade(light, rng.uniform(0.05, 0.3), 0.1)
    patch.blend(image, rng.uniform(0.2, 0.7))
