"""Draws faces, things that resemble them, and backgrounds. OpenCV and numpy only.

A face is an ellipsoid in units of half its height: x to the right, y down, centre 0, chin at
y = 1, half as deep and wide as `Face.width`. Its features lie on that surface, so that a turned
head shows them turned, and its landmarks follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from detector.data.synthetic.backgrounds import background

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
_CIRCLE = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 24, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 24, endpoint=False)),
    ],
    axis=1,
)
# left eye, right eye, nose tip, left and right mouth corner of a face that looks straight ahead
POINTS = np.array([(-0.33, -0.12), (0.33, -0.12), (0, 0.26), (-0.25, 0.53), (0.25, 0.53)])
COVERS = ("mask", "hand", "scarf", "bar")
THINGS = ("ball", "blank", "clock", "button", "window", "jumble")


@dataclass(frozen=True)
class Face:
    x: float
    """Centre in px of the picture, as y."""
    y: float
    height: float
    """Forehead to chin in px, before the head is tilted."""
    width: float
    """Over height."""
    roll: float
    """Tilt in radians, clockwise."""
    yaw: float
    """Turn in radians, to the right of the picture."""
    cover: str | None
    """What hides a part of it: one of COVERS."""

    @staticmethod
    def random(x: float, y: float, height: float, rng: np.random.Generator) -> Face:
        return Face(
            x,
            y,
            height,
            width=rng.uniform(0.7, 0.84),
            roll=float(np.clip(0.16 * rng.standard_normal(), -0.7, 0.7)),
            yaw=float(np.clip(0.35 * rng.standard_normal(), -0.9, 0.9)),
            cover=rng.choice(COVERS) if rng.random() < 0.13 else None,
        )

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 around the tilted ellipse, in px."""
        half = self.height / 2
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        dx = half * np.hypot(self.width * cos, sin)
        dy = half * np.hypot(self.width * sin, cos)
        return self.x - dx, self.y - dy, self.x + dx, self.y + dy


@dataclass(frozen=True)
class Thing:
    """No face, but round, or coloured like skin, or with two dark spots."""

    x: float
    y: float
    height: float
    kind: str

    @staticmethod
    def random(x: float, y: float, height: float, rng: np.random.Generator) -> Thing:
        return Thing(x, y, height, str(rng.choice(THINGS)))


def landmarks_of(face: Face) -> np.ndarray:
    """float64 [5, 2]: the landmarks in px."""
    depth = np.array([0, 0, 0.16, 0, 0])  # the nose stands out
    points = turn(POINTS, face.width, face.yaw, depth)
    return tilt(points, face.roll) * face.height / 2 + (face.x, face.y)


def turn(points: np.ndarray, width: float, yaw: float, depth: float | np.ndarray = 0.0):
    """Points [N, 2] on the front of the ellipsoid, after the head turned by `yaw`."""
    x, y = points.T
    z = width * np.sqrt(np.maximum(0, 1 - (x / width) ** 2 - y * y)) + depth
    turned = points.astype(float)
    turned[:, 0] = x * math.cos(yaw) + z * math.sin(yaw)
    return turned


def tilt(points: np.ndarray, roll: float) -> np.ndarray:
    cos, sin = math.cos(roll), math.sin(roll)
    return points @ np.array(((cos, sin), (-sin, cos)))


class Patch:
    """A cut-out around one item, drawn finer than the picture and then blended in."""

    def __init__(self, x: float, y: float, unit: float, reach: tuple[float, float, float], colour):
        """`unit`: px of the picture; `reach`: units from the centre to the patch's sides, top
        and bottom."""
        self.fine = int(np.clip(np.ceil(16 / unit), 1, 3))
        aside, up, down = (r * unit for r in reach)
        self.left, self.top = int(np.floor(x - aside)), int(np.floor(y - up))
        self.size = int(2 * aside) + 3, int(up + down) + 3  # width, height
        self.unit = unit * self.fine
        self.centre = np.array([x - self.left, y - self.top]) * self.fine
        shape = self.size[1] * self.fine, self.size[0] * self.fine
        self.pixels = np.full((*shape, 3), colour, np.uint8)
        self.mask = np.zeros(shape, np.uint8)

    def polygon(self, points: np.ndarray, colour, alpha: bool = True) -> None:
        """Fills points [N, 2] in units; `alpha` False stays within what is drawn."""
        fixed = np.rint((points * self.unit + self.centre) * 16).astype(np.int32)
        cv2.fillPoly(self.pixels, [fixed], _bgr(colour), cv2.LINE_AA, 4)
        if alpha:
            cv2.fillPoly(self.mask, [fixed], 255, cv2.LINE_AA, 4)

    def line(self, points: np.ndarray, colour, width: float, alpha: bool = False) -> None:
        fixed = np.rint((points * self.unit + self.centre) * 16).astype(np.int32)
        width = max(1, round(width * self.unit))
        cv2.polylines(self.pixels, [fixed], False, _bgr(colour), width, cv2.LINE_AA, 4)
        if alpha:
            cv2.polylines(self.mask, [fixed], False, 255, width, cv2.LINE_AA, 4)

    def shade(self, light: tuple[float, float], strength: float, rim: float) -> None:
        """Brighter towards `light`, darker towards the rim of the unit circle."""
        x, y = ((np.arange(20) + 0.5) / 20 * self.fine * side for side in self.size)
        x, y = (x - self.centre[0]) / self.unit, ((y - self.centre[1]) / self.unit)[:, None]
        gain = 1 + strength * (x * light[0] + y * light[1]) - rim * (x**2 + y**2)
        gain = cv2.resize(gain.clip(0.25, 1.6).astype(np.float32), self.mask.shape[::-1])
        cv2.multiply(self.pixels, cv2.merge([gain] * 3), dst=self.pixels, dtype=cv2.CV_8U)

    def soften(self, units: float) -> None:
        if units * self.unit / self.fine > 0.4:  # else it would not be seen
            self.pixels = cv2.GaussianBlur(self.pixels, (0, 0), units * self.unit)

    def blend(self, picture: np.ndarray, blur: float, strength: float = 1.0) -> None:
        """Into the picture; `blur` in its px."""
        pixels, mask = self.pixels, self.mask
        if self.fine > 1:
            pixels = cv2.resize(pixels, self.size, interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask, self.size, interpolation=cv2.INTER_AREA)
        if blur > 0.4:
            pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
            mask = cv2.GaussianBlur(mask, (0, 0), blur)
        height, width = picture.shape[:2]
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + self.size[1], height), min(self.left + self.size[0], width)
        inner = np.s_[top - self.top : bottom - self.top, left - self.left : right - self.left]
        share = (mask[inner].astype(np.float32) * (strength / 255))[..., None]
        target = picture[top:bottom, left:right]
        target[:] = target + share * (pixels[inner].astype(np.float32) - target)


def _bgr(colour) -> tuple[int, int, int]:
    return tuple(int(min(max(c, 0), 255)) for c in colour)


def _oval(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return _CIRCLE * (rx, ry) + (x, y)


def _block(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def paint(size: tuple[int, int], style: str, items, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3] BGR: the background of this style and the items in front, in order."""
    picture = background(style, size, rng)
    light = rng.uniform(-1, 1), rng.uniform(-1, 0.4)
    for item in items:
        draw = _paint_face if isinstance(item, Face) else _paint_thing
        draw(picture, item, light, rng)
    return _expose(picture, style, rng)


def _expose(picture: np.ndarray, style: str, rng: np.random.Generator) -> np.ndarray:
    """The camera: darkness, coloured light, blur and noise."""
    height, width = picture.shape[:2]
    gain = rng.uniform(0.75, 1.1, 3) * (rng.uniform(0.4, 0.65) if style == "dark" else 1.0)
    if style == "stripes":
        gain *= rng.uniform(0.5, 1.15, 3)
    if rng.random() < 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.45, 1.1))
    lit = cv2.LUT(picture, (np.arange(256)[:, None] * gain).clip(0, 255).astype(np.uint8)[None])
    noise = rng.standard_normal((height, width), np.float32) * rng.uniform(1, 5)
    return cv2.add(lit, cv2.merge([noise] * 3), dtype=cv2.CV_8U)


def _paint_face(picture: np.ndarray, face: Face, light, rng: np.random.Generator) -> None:
    skin, hair = _tone(SKIN, rng), _tone(HAIR, rng)
    shirt = rng.uniform(20, 235, 3)
    half = face.height / 2
    patch = Patch(face.x, face.y, half, (2.0, 1.75, 2.5), skin * 0.8)
    w, roll = face.width, face.roll

    def on(points, depth=0.0):  # the face's surface
        return tilt(turn(np.asarray(points, float), w, face.yaw, depth), roll)

    def feature(x, y, rx, ry, colour):
        patch.polygon(on(_oval(x, y, rx, ry)), colour, alpha=False)

    _body(patch, skin, shirt, rng)
    cut = rng.choice(("short", "long", "bald", "hat"), p=(0.45, 0.3, 0.1, 0.15))
    if cut == "long":
        patch.polygon(tilt(_oval(0, 0.15, w * 1.3, 1.32), roll), hair * 0.8)
    elif cut != "bald":
        patch.polygon(tilt(_oval(-0.25 * np.sin(face.yaw), -0.12, w * 1.08, 1.06), roll), hair)
    for side in (-1, 1):
        patch.polygon(
            tilt(_oval(side * w * 0.99 - 0.35 * np.sin(face.yaw), 0.05, 0.13, 0.22), roll),
            skin * 0.85,
        )

    patch.polygon(tilt(_oval(0, 0, w, 1), roll), skin)
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
    patch.blend(picture, blur, rng.uniform(0.65, 0.9) if rng.random() < 0.15 else 1.0)


def _body(patch: Patch, skin, shirt, rng: np.random.Generator) -> None:
    """Shoulders and neck; the head's hair and ears come in front."""
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


def _tone(palette: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour between two neighbours of the palette."""
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
            patch.line(on(_oval(x, y + 0.02, 0.25, 0.2)), (25, 25, 25), 0.04)
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
    """Fringe or hat: what lies over the forehead."""
    if cut == "bald":
        return
    angle = np.linspace(np.pi, 2 * np.pi, 16)
    outer = np.stack([np.cos(angle) * w * 1.07, np.sin(angle) * 1.07 - 0.1], axis=1)
    if cut == "hat":
        colour = rng.uniform(20, 220, 3)
        patch.polygon(
            tilt(
                np.vstack([outer * (1.05, 1.06) + (0, -0.3), (w * 1.1, -0.52), (-w * 1.1, -0.52)]),
                roll,
            ),
            colour,
        )
        patch.polygon(tilt(_oval(0, -0.52, w * 1.4, 0.12), roll), colour * 0.7)
        return
    line = rng.uniform(-0.62, -0.42)
    part = rng.uniform(-0.4, 0.4)
    inner = np.array(
        [(w * 0.97, -0.2), (w * 0.8, line), (part, line - 0.2), (-w * 0.8, line), (-w * 0.97, -0.2)]
    )
    patch.polygon(tilt(np.vstack([outer, inner]), roll), hair)


def _cover(patch: Patch, face: Face, on, skin, rng: np.random.Generator) -> None:
    colour = rng.uniform(40, 235, 3)
    if face.cover == "mask":
        colour = colour * 0.3 + 160
        patch.polygon(
            on([(-0.62, 0.15), (0, 0.05), (0.62, 0.15), (0.55, 0.65), (0, 0.98), (-0.55, 0.65)]),
            colour,
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
        patch.polygon(np.array([(-1.0, 0.55), (1.0, 0.45), (1.2, 1.5), (-1.2, 1.5)]), colour)
    else:  # something upright in front
        x = rng.choice((-1, 1)) * rng.uniform(0.25, 0.6)
        patch.polygon(_block(x - 0.25, -1.6, x + 0.25, 2.4), colour * 0.6)


def _paint_thing(picture: np.ndarray, thing: Thing, light, rng: np.random.Generator) -> None:
    skin = _tone(SKIN, rng)
    colour = skin if rng.random() < 0.4 else rng.uniform(30, 230, 3)
    patch = Patch(thing.x, thing.y, thing.height / 2, (2.0, 1.3, 2.5), colour * 0.8)

    def spot(x, y, rx, ry, shade):
        patch.polygon(_oval(x, y, rx, ry), shade)

    if thing.kind == "ball":
        spot(0, 0, 1, 1, colour)
        spot(0.35 * light[0], 0.35 * light[1], 0.35, 0.35, colour * 1.25)
        patch.soften(0.15)
    elif thing.kind == "blank":  # a head from behind, or an egg
        if rng.random() < 0.6:
            _body(patch, skin, rng.uniform(20, 235, 3), rng)
        spot(0, 0, rng.uniform(0.7, 0.8), 1, skin)
        if rng.random() < 0.6:
            spot(0, -0.1, 0.84, 0.95, _tone(HAIR, rng))
        patch.soften(0.07)
    elif thing.kind == "clock":
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
    elif thing.kind == "button":
        spot(0, 0, 1, 1, colour * 0.7)
        spot(0, 0, 0.85, 0.85, colour)
        for x in (-0.27, 0.27):
            for y in (-0.27, 0.27):
                spot(x, y, 0.12, 0.12, (20, 20, 20))
    elif thing.kind == "window":  # a house front, or a radio: two holes over a slit
        patch.polygon(_block(-0.8, -1, 0.8, 1), colour)
        for x in (-0.35, 0.35):
            patch.polygon(_block(x - 0.2, -0.45, x + 0.2, 0), colour * 0.25)
        patch.polygon(_block(-0.4, 0.45, 0.4, 0.65), colour * 0.3)
    else:  # the parts of a face, each in a wrong place
        spot(0, 0, 0.78, 1, skin)
        for x, y in rng.permutation(np.vstack([POINTS[:3], (0, 0.6), (0, -0.6)]))[:3]:
            spot(x, y, 0.15, 0.07, (225, 228, 232))
            spot(x, y, 0.07, 0.07, (25, 25, 25))
        spot(rng.uniform(-0.3, 0.3), rng.choice((-0.65, 0.1)), 0.28, 0.08, skin * (0.5, 0.5, 0.85))
    patch.shade(light, rng.uniform(0.05, 0.3), 0.1)
    patch.blend(picture, rng.uniform(0.2, 0.7))
