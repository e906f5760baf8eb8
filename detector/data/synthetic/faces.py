"""Paints faces: skin, hair, eyes, nose, mouth, and what covers them."""

from __future__ import annotations

import numpy as np

from detector.data.synthetic.objects import POINTS, Face, tilt, turn
from detector.data.synthetic.patch import Patch, block, oval

# BGR, from light to dark
SKIN = np.array(
    [
        (190, 208, 238),
        (160, 186, 226),
        (125, 160, 208),
        (90, 125, 175),
        (60, 88, 135),
        (42, 60, 96),
    ],
    float,
)
HAIR = np.array(
    [(30, 28, 32), (38, 52, 78), (50, 80, 120), (95, 150, 190), (165, 165, 165), (40, 60, 140)],
    float,
)


def paint_face(image: np.ndarray, face: Face, light, rng: np.random.Generator) -> None:
    """Paints a face into the image (uint8 [H, W, 3] BGR), lit from the direction `light` (x, y)."""
    skin, hair = blend_colors(SKIN, rng), blend_colors(HAIR, rng)
    shirt = rng.uniform(20, 235, 3)
    half = face.height / 2
    patch = Patch(face.x, face.y, half, (2.0, 1.75, 2.5), skin * 0.8)
    w, roll = face.width, face.roll

    def on(points, depth=0.0):  # on the surface of the face
        return tilt(turn(np.asarray(points, float), w, face.yaw, depth), roll)

    def feature(x, y, rx, ry, color):
        patch.polygon(on(oval(x, y, rx, ry)), color, alpha=False)

    paint_body(patch, skin, shirt, rng)
    cut = rng.choice(("short", "long", "bald", "hat"), p=(0.45, 0.3, 0.1, 0.15))
    if cut == "long":
        patch.polygon(tilt(oval(0, 0.15, w * 1.3, 1.32), roll), hair * 0.8)
    elif cut != "bald":
        patch.polygon(tilt(oval(-0.25 * np.sin(face.yaw), -0.12, w * 1.08, 1.06), roll), hair)
    for side in (-1, 1):
        patch.polygon(
            tilt(oval(side * w * 0.99 - 0.35 * np.sin(face.yaw), 0.05, 0.13, 0.22), roll),
            skin * 0.85,
        )

    patch.polygon(tilt(oval(0, 0, w, 1), roll), skin)
    for side in (-1, 1):  # cheeks and eye sockets
        feature(side * 0.4, 0.3, 0.2, 0.16, skin * (0.93, 0.93, 1.06))
        feature(side * 0.33, -0.15, 0.25, 0.17, skin * 0.84)
    feature(0, 0.3, 0.2, 0.14, skin * 0.85)
    patch.soften(0.07)

    _eyes(feature, on, patch, hair, rng)
    _nose_and_mouth(feature, on, patch, skin, hair, rng)
    _top(patch, cut, hair, w, roll, rng)
    patch.shade(light, rng.uniform(0.05, 0.3), 0.1)
    if face.cover:
        _cover(patch, face, on, skin, rng)
    blur = rng.uniform(0.2, 0.7) + (0.05 * half * rng.random() if rng.random() < 0.2 else 0)
    patch.blend(image, blur, rng.uniform(0.65, 0.9) if rng.random() < 0.15 else 1.0)


def paint_body(patch: Patch, skin, shirt, rng: np.random.Generator) -> None:
    """Shoulders and neck, behind hair and ears."""
    wide = rng.uniform(1.3, 1.8)
    patch.polygon(
        np.array(
            [
                (-0.35, 1.0),
                (0.35, 1.0),
                (0.6, 1.25),
                (wide, 1.6),
                (wide * 1.1, 2.5),
                (-wide * 1.1, 2.5),
                (-wide, 1.6),
                (-0.6, 1.25),
            ]
        ),
        shirt,
    )
    patch.polygon(
        np.array([(-0.36, 0.6), (0.36, 0.6), (0.4, 1.3), (0, 1.55), (-0.4, 1.3)]), skin * 0.72
    )


def blend_colors(palette: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A color between two neighbours in the palette."""
    at = rng.uniform(0, len(palette) - 1.001)
    low = palette[int(at)]
    return (low + (palette[int(at) + 1] - low) * (at % 1)) * rng.uniform(0.9, 1.08)


def _eyes(feature, on, patch: Patch, hair, rng: np.random.Generator) -> None:
    openness = rng.uniform(0.03, 0.085)
    iris = rng.uniform(20, 110, 3)
    brow = rng.uniform(-0.05, 0.05)
    for side, (x, y) in zip((-1, 1), POINTS[:2]):
        feature(x, y, 0.155, openness + 0.02, (35, 35, 45))
        feature(x, y + 0.01, 0.14, openness, (225, 228, 232))
        feature(x, y, 0.075, min(0.08, openness + 0.02), iris)
        feature(x, y, 0.035, 0.04, (10, 10, 10))
        patch.line(
            on(
                [
                    (x - 0.19, y - 0.2 + side * brow),
                    (x, y - 0.25),
                    (x + 0.19, y - 0.2 - side * brow),
                ]
            ),
            hair * 0.6,
            rng.uniform(0.05, 0.1),
        )
    if rng.random() < 0.17:
        dark = rng.random() < 0.5
        for x, y in POINTS[:2]:
            if dark:
                feature(x, y + 0.02, 0.25, 0.19, (25, 22, 20))
            patch.line(on(oval(x, y + 0.02, 0.25, 0.2)), (25, 25, 25), 0.04)
        patch.line(on([(-0.1, -0.12), (0.1, -0.12)]), (25, 25, 25), 0.04)


def _nose_and_mouth(feature, on, patch: Patch, skin, hair, rng: np.random.Generator) -> None:
    patch.line(on([(0.06, -0.1), (0.1, 0.2), (0.03, 0.31)], 0.1), skin * 0.74, 0.045)
    patch.line(on([(-0.02, -0.05), (-0.02, 0.2)], 0.13), skin * 1.1, 0.06)
    for side in (-1, 1):
        feature(side * 0.075, 0.31, 0.04, 0.025, skin * 0.45)
    if rng.random() < 0.2:  # a beard
        patch.polygon(
            on(
                np.array(
                    [
                        (-0.5, 0.35),
                        (-0.3, 0.42),
                        (0, 0.38),
                        (0.3, 0.42),
                        (0.5, 0.35),
                        (0.42, 0.75),
                        (0, 0.97),
                        (-0.42, 0.75),
                    ]
                )
            ),
            hair * 0.8,
            alpha=False,
        )
    smile = rng.uniform(-0.03, 0.09)
    lips = skin * (0.62, 0.6, 0.88)
    left, right = POINTS[3], POINTS[4]
    lower = np.array([(-0.12, 0.53 + smile + 0.07), (0.12, 0.53 + smile + 0.07)])
    upper = np.array([(0.1, 0.49 + smile / 2), (0, 0.505 + smile / 2), (-0.1, 0.49 + smile / 2)])
    patch.polygon(on(np.vstack([left, lower, right, upper])), lips, alpha=False)
    if rng.random() < 0.35:
        feature(0, 0.55 + smile / 2, 0.17, rng.uniform(0.03, 0.09), (40, 25, 60))
        feature(0, 0.525 + smile / 2, 0.14, 0.02, (225, 232, 235))
    else:
        patch.line(on([left, (0, 0.545 + smile), right]), skin * 0.35, 0.035)


def _top(patch: Patch, cut: str, hair, w: float, roll: float, rng: np.random.Generator) -> None:
    """Fringe or hat: what covers the forehead."""
    if cut == "bald":
        return
    angle = np.linspace(np.pi, 2 * np.pi, 16)
    outer = np.stack([np.cos(angle) * w * 1.07, np.sin(angle) * 1.07 - 0.1], axis=1)
    if cut == "hat":
        color = rng.uniform(20, 220, 3)
        patch.polygon(
            tilt(
                np.vstack([outer * (1.05, 1.06) + (0, -0.3), (w * 1.1, -0.52), (-w * 1.1, -0.52)]),
                roll,
            ),
            color,
        )
        patch.polygon(tilt(oval(0, -0.52, w * 1.4, 0.12), roll), color * 0.7)
        return
    line = rng.uniform(-0.62, -0.42)
    part = rng.uniform(-0.4, 0.4)
    inner = np.array(
        [(w * 0.97, -0.2), (w * 0.8, line), (part, line - 0.2), (-w * 0.8, line), (-w * 0.97, -0.2)]
    )
    patch.polygon(tilt(np.vstack([outer, inner]), roll), hair)


def _cover(patch: Patch, face: Face, on, skin, rng: np.random.Generator) -> None:
    color = rng.uniform(40, 235, 3)
    if face.cover == "mask":
        color = color * 0.3 + 160
        patch.polygon(
            on([(-0.62, 0.15), (0, 0.05), (0.62, 0.15), (0.55, 0.65), (0, 0.98), (-0.55, 0.65)]),
            color,
            alpha=False,
        )
    elif face.cover == "hand":
        side = rng.choice((-1, 1))
        for i in range(4):
            patch.line(
                np.array([(side * 1.2, 1.1 - 0.1 * i), (side * 0.25, 0.75 - 0.19 * i)]),
                skin * (1.05 - 0.06 * i),
                0.19,
                alpha=True,
            )
    elif face.cover == "scarf":
        patch.polygon(np.array([(-1.0, 0.55), (1.0, 0.45), (1.2, 1.5), (-1.2, 1.5)]), color)
    else:  # something upright in front
        x = rng.choice((-1, 1)) * rng.uniform(0.25, 0.6)
        patch.polygon(block(x - 0.25, -1.6, x + 0.25, 2.4), color * 0.6)
