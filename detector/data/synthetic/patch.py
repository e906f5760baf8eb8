"""A patch: one object of a drawn scene, painted at a finer scale and blended into the image."""

from __future__ import annotations

import cv2
import numpy as np

_CIRCLE = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 24, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 24, endpoint=False)),
    ],
    axis=1,
)


class Patch:
    """The part of an image around one object, painted at a finer scale and then blended in."""

    def __init__(self, x: float, y: float, unit: float, reach: tuple[float, float, float], color):
        """
        Args:
            x, y: centre in px of the image.
            unit: in px of the image.
            reach: units from the centre to the patch's sides, top and bottom.
            color: BGR of all pixels.
        """
        self.fine = int(np.clip(np.ceil(16 / unit), 1, 3))
        aside, up, down = (r * unit for r in reach)
        self.left, self.top = int(np.floor(x - aside)), int(np.floor(y - up))
        self.size = int(2 * aside) + 3, int(up + down) + 3  # width, height
        self.unit = unit * self.fine
        self.centre = np.array([x - self.left, y - self.top]) * self.fine
        shape = self.size[1] * self.fine, self.size[0] * self.fine
        self.pixels: np.ndarray = np.full((*shape, 3), color, np.uint8)
        self.mask: np.ndarray = np.zeros(shape, np.uint8)

    def polygon(self, points: np.ndarray, color, alpha: bool = True) -> None:
        """Fills a polygon of points [N, 2] in units; without `alpha` the mask does not change."""
        fixed = np.rint((points * self.unit + self.centre) * 16).astype(np.int32)
        cv2.fillPoly(self.pixels, [fixed], _bgr(color), cv2.LINE_AA, 4)
        if alpha:
            cv2.fillPoly(self.mask, [fixed], 255, cv2.LINE_AA, 4)

    def line(self, points: np.ndarray, color, width: float, alpha: bool = False) -> None:
        """Draws a line along points [N, 2] in units; without `alpha` the mask does not change."""
        fixed = np.rint((points * self.unit + self.centre) * 16).astype(np.int32)
        width = max(1, round(width * self.unit))
        cv2.polylines(self.pixels, [fixed], False, _bgr(color), width, cv2.LINE_AA, 4)
        if alpha:
            cv2.polylines(self.mask, [fixed], False, 255, width, cv2.LINE_AA, 4)

    def shade(self, light: tuple[float, float], strength: float, rim: float) -> None:
        """Makes pixels brighter towards `light`, darker towards the rim of the unit circle."""
        x, y = ((np.arange(20) + 0.5) / 20 * self.fine * side for side in self.size)
        x, y = (x - self.centre[0]) / self.unit, ((y - self.centre[1]) / self.unit)[:, None]
        gain = 1 + strength * (x * light[0] + y * light[1]) - rim * (x**2 + y**2)
        gain = cv2.resize(gain.clip(0.25, 1.6).astype(np.float32), self.mask.shape[::-1])
        cv2.multiply(self.pixels, cv2.merge([gain] * 3), dst=self.pixels, dtype=cv2.CV_8U)

    def soften(self, units: float) -> None:
        """Blurs the pixels, not the mask."""
        if units * self.unit / self.fine > 0.4:  # otherwise invisible
            self.pixels = cv2.GaussianBlur(self.pixels, (0, 0), units * self.unit)

    def blend(self, image: np.ndarray, blur: float, strength: float = 1.0) -> None:
        """Blends the patch into the image; `blur` is in px of the image."""
        pixels, mask = self.pixels, self.mask
        if self.fine > 1:
            pixels = cv2.resize(pixels, self.size, interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask, self.size, interpolation=cv2.INTER_AREA)
        if blur > 0.4:
            pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
            mask = cv2.GaussianBlur(mask, (0, 0), blur)
        height, width = image.shape[:2]
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + self.size[1], height), min(self.left + self.size[0], width)
        inner = np.s_[top - self.top : bottom - self.top, left - self.left : right - self.left]
        share = (mask[inner].astype(np.float32) * (strength / 255))[..., None]
        target = image[top:bottom, left:right]
        target[:] = target + share * (pixels[inner].astype(np.float32) - target)


def _bgr(color) -> tuple[int, int, int]:
    blue, green, red = (int(min(max(c, 0), 255)) for c in color)
    return blue, green, red


def oval(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Points [24, 2] of an ellipse."""
    return _CIRCLE * (rx, ry) + (x, y)


def block(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """The corners [4, 2] of a rectangle."""
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
