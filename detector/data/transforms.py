"""Augmentation of images and their faces, as in RetinaFace: crop, pad, resize, colour, flip.

The transforms of a batch are sampled for all its images at once, before pixels are read; everything
after the crop works on the small resized uint8 image. Random numbers are arguments, so that the
result does not depend on where an image is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from detector.config.recipe import Augmentation

PAD = (104, 117, 123)  # BGR mean of ImageNet: the padding of crops beyond the image
TRIES = 50  # random squares for each image
FLIPPED_LANDMARKS = (1, 0, 2, 4, 3)  # left and right eye, left and right mouth corner swap
_GREY = np.array([0.114, 0.587, 0.299])  # BGR weights of BT.601
_SCALES, _CORNERS = slice(0, TRIES), slice(TRIES, 3 * TRIES)
_FACE, _OFFSET, _FLIP = 3 * TRIES, slice(3 * TRIES + 1, 3 * TRIES + 3), 3 * TRIES + 3
_COLORS = slice(3 * TRIES + 4, 3 * TRIES + 12)
NUMBERS = 3 * TRIES + 12
"""Random numbers in [0, 1) for the augmentation of an image."""


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces of one image or of several, each in its image's pixels."""

    boxes: np.ndarray
    """float32 [N, 4]: x1, y1, x2, y2."""
    landmarks: np.ndarray
    """float32 [N, 5, 2]; NaN where unknown."""
    ignore: np.ndarray
    """bool [N]."""
    image: np.ndarray | None = None
    """int64 [N], ascending: index in the batch of each face's image; None for a single image."""

    def __getitem__(self, selected: np.ndarray) -> Faces:
        return Faces(
            self.boxes[selected],
            self.landmarks[selected],
            self.ignore[selected],
            None if self.image is None else self.image[selected],
        )

    @property
    def image_indices(self) -> np.ndarray:
        """`image`, which must be set."""
        assert self.image is not None
        return self.image

    @property
    def centres(self) -> np.ndarray:
        """[N, 2]: x, y."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def batched(self) -> Faces:
        """The same with `image` set; 0 for a single image."""
        return (
            self
            if self.image is not None
            else Faces(self.boxes, self.landmarks, self.ignore, np.zeros(len(self.boxes), np.int64))
        )

    def moved(self, scale: float | np.ndarray, shift: np.ndarray) -> Faces:
        """Every point p becomes (p - shift) * scale; both are a number, or x, y, or x, y of each
        face."""
        scale = np.broadcast_to(np.asarray(scale, np.float32), (len(self.boxes), 2))
        shift = np.broadcast_to(np.asarray(shift, np.float32), (len(self.boxes), 2))
        boxes = (self.boxes - np.tile(shift, 2)) * np.tile(scale, 2)
        return Faces(
            boxes, (self.landmarks - shift[:, None]) * scale[:, None], self.ignore, self.image
        )


@dataclass(frozen=True, eq=False)
class Transforms:
    """The sampled augmentation of the images of a batch."""

    windows: np.ndarray
    """int64 [B, 3]: x, y and side of the square crops, in px of the images, beyond which they may
    reach."""
    colors: np.ndarray
    """float64 [B, 3, 4]: BGR becomes color[:, :3] @ BGR + color[:, 3]."""
    flips: np.ndarray
    """bool [B]: whether to flip the crop horizontally."""

    def __len__(self) -> int:
        return len(self.flips)

    def __getitem__(self, images: slice) -> Transforms:
        return Transforms(self.windows[images], self.colors[images], self.flips[images])

    def faces(self, faces: Faces, size: int, min_face: float) -> Faces:
        """The faces whose centres are in the crops, in px of the crops resized to `size` px and
        clipped to them; faces smaller than `min_face` px are marked as ignored."""
        faces = crop_faces(faces, self.windows, size)
        faces = _flip_where(faces, self.flips, size)
        small = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1) < min_face
        return Faces(faces.boxes, faces.landmarks, faces.ignore | small, faces.image)

    def render(self, number: int, image: np.ndarray, out: np.ndarray) -> None:
        """Writes the augmented crop of the batch's `number`-th image (uint8 [H, W, 3] BGR) to `out`
        (uint8 [size, size, 3])."""
        crop_image(image, self.windows[number], out)
        recolor(out, self.colors[number])
        if self.flips[number]:
            cv2.flip(out, 1, dst=out)


def sample(
    sizes: np.ndarray, faces: Faces, settings: Augmentation, numbers: np.ndarray
) -> Transforms:
    """Samples the augmentation of a batch.

    Args:
        sizes: int [B, 2]: width and height of the images in px.
        faces: of the images.
        numbers: float64 [B, NUMBERS], uniform in [0, 1).
    """
    windows = sample_windows(sizes, faces, settings.scales, numbers)
    return Transforms(
        windows, sample_colors(settings.photometric, numbers), numbers[:, _FLIP] < settings.flip
    )


def augment(
    image: np.ndarray, faces: Faces, size: int, settings: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, Faces]:
    """A random augmentation of one image for training.

    Args:
        image: uint8 [H, W, 3] BGR.
        faces: in pixels of `image`.
        size: side of the result in px.

    Returns:
        uint8 [size, size, 3] BGR, and the faces with centres in it, clipped to it.
    """
    transforms = sample(
        np.array([image.shape[1::-1]]), faces.batched, settings, rng.random((1, NUMBERS))
    )
    out = np.empty((size, size, 3), np.uint8)
    transforms.render(0, image, out)
    return out, transforms.faces(faces.batched, size, settings.min_face)


def sample_windows(
    sizes: np.ndarray, faces: Faces, scales: tuple[float, ...], numbers: np.ndarray
) -> np.ndarray:
    """int64 [B, 3]: a random square x, y, side in px for each image, as in RetinaFace.

    Its side is a random share of the image's short side. The first of TRIES squares that contains
    a complete face is taken, or else the first that contains a face's centre, or else one around a
    random face. An image without faces takes the first. Arguments as for `sample`.
    """
    shares = np.asarray(scales)[(numbers[:, _SCALES] * len(scales)).astype(int)]
    sides = np.maximum(1, np.rint(sizes.min(axis=1)[:, None] * shares)).astype(np.int64)  # [B, T]
    # a square larger than the image contains it
    spare = sizes[:, None] - sides[:, :, None]  # [B, T, 2]
    offsets = numbers[:, _CORNERS].reshape(len(sizes), TRIES, 2)
    corners = np.minimum(spare, 0) + np.floor(offsets * (np.abs(spare) + 1)).astype(np.int64)

    images = np.arange(len(sizes))
    tries = np.zeros(len(sizes), np.int64)
    faces = faces.batched
    targets = faces[~faces.ignore]
    owner = targets.image_indices
    first = np.searchsorted(owner, images)
    counts = np.searchsorted(owner, images, "right") - first
    has_faces = counts > 0
    if has_faces.any():
        low = corners[owner].astype(np.float32)
        high = low + sides[owner][:, :, None].astype(np.float32)  # [N, T, 2]
        boxes, centres = targets.boxes[:, None], targets.centres[:, None]
        whole = ((boxes[..., :2] >= low) & (boxes[..., 2:] <= high)).all(axis=2)
        has_centre = ((centres > low) & (centres < high)).all(axis=2)
        rank = np.maximum(2 * whole, has_centre)
        best = np.maximum.reduceat(rank, first[has_faces], axis=0)  # [·, T]
        tries[has_faces] = best.argmax(axis=1)
    windows = np.concatenate([corners[images, tries], sides[images, tries, None]], axis=1)
    if has_faces.any() and (no_face := best.max(axis=1) == 0).any():
        missed = images[has_faces][no_face]
        windows[missed] = _around(
            sizes[missed],
            sides[missed, 0],
            targets.centres[first[missed] + (numbers[missed, _FACE] * counts[missed]).astype(int)],
            numbers[missed, _OFFSET],
        )
    return windows


def _around(
    sizes: np.ndarray, sides: np.ndarray, centres: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Squares [B, 3] of the given sides around the given points, inside the images if possible."""
    corners = np.floor(centres - sides[:, None] * (0.2 + 0.6 * offsets))
    limits = sizes - sides[:, None]
    corners = np.clip(corners, np.minimum(limits, 0), np.maximum(limits, 0))
    return np.concatenate([corners, sides[:, None]], axis=1).astype(np.int64)


def sample_window(
    size: tuple[int, int], faces: Faces, scales: tuple[float, ...], rng: np.random.Generator
) -> tuple[int, int, int]:
    """`sample_windows` for one image."""
    numbers = rng.random((1, NUMBERS))
    x, y, side = sample_windows(np.array([size]), faces, scales, numbers)[0].tolist()
    return x, y, side


def crop(
    image: np.ndarray,
    faces: Faces,
    window: tuple[int, int, int],
    size: int,
) -> tuple[np.ndarray, Faces]:
    """The window of the image resized to `size` px square, and the faces with centres in it."""
    out = np.empty((size, size, 3), np.uint8)
    crop_image(image, window, out)
    return out, crop_faces(faces.batched, np.array([window]), size)


def crop_image(
    image: np.ndarray, window: tuple[int, int, int] | np.ndarray, out: np.ndarray
) -> None:
    """Writes the window of the image to `out` (uint8 [size, size, 3]), padded with PAD beyond the
    image; area interpolation if it shrinks, otherwise linear."""
    x, y, side = map(int, window)
    height, width = image.shape[:2]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + side, width), min(y + side, height)
    window_pixels = image[top:bottom, left:right]
    if window_pixels.shape[:2] != (side, side):
        window_pixels = cv2.copyMakeBorder(
            window_pixels,
            top - y,
            y + side - bottom,
            left - x,
            x + side - right,
            cv2.BORDER_CONSTANT,
            value=PAD,
        )
    cv2.resize(
        window_pixels,
        out.shape[1::-1],
        dst=out,
        interpolation=cv2.INTER_AREA if side > len(out) else cv2.INTER_LINEAR,
    )


def crop_faces(faces: Faces, windows: np.ndarray, size: int) -> Faces:
    """The faces with centres in the windows (int [B, 3]) of their images, in px of the windows
    resized to `size` px.

    Boxes are clipped, landmarks outside become unknown, boxes without area are dropped.
    """
    owner = faces.image_indices
    corner, side = windows[owner, :2], windows[owner, 2:]
    centres = faces.centres - corner
    inside = ((centres > 0) & (centres < side)).all(axis=1)
    faces = faces[inside].moved((size / side)[inside], corner[inside])
    boxes, landmarks = faces.boxes.clip(0, size), faces.landmarks
    inside = ((landmarks >= 0) & (landmarks <= size)).all(axis=2, keepdims=True)
    landmarks = np.where(inside, landmarks, np.float32(np.nan))
    faces = Faces(boxes, landmarks, faces.ignore, faces.image)
    has_area = boxes[:, 2:] > boxes[:, :2]
    return faces[has_area[:, 0] & has_area[:, 1]]


def flip(image: np.ndarray, faces: Faces) -> tuple[np.ndarray, Faces]:
    """Flips horizontally, in place, and swaps left and right landmarks."""
    return cv2.flip(image, 1, dst=image), _flip_where(
        faces.batched, np.array([True]), image.shape[1]
    )


def _flip_where(faces: Faces, flips: np.ndarray, width: int) -> Faces:
    """The faces after flipping the images with `flips` (bool [B]), all `width` px wide."""
    flipped = flips[faces.image_indices]
    boxes, landmarks = faces.boxes.copy(), faces.landmarks.copy()
    boxes[flipped, 0::2] = width - faces.boxes[flipped, 2::-2]
    points = faces.landmarks[flipped][:, FLIPPED_LANDMARKS]
    points[..., 0] = width - points[..., 0]
    landmarks[flipped] = points
    return Faces(boxes, landmarks, faces.ignore, faces.image)


def sample_colors(probability: float, numbers: np.ndarray) -> np.ndarray:
    """float64 [B, 3, 4], see `Transforms.colors`: brightness ±32, contrast and saturation
    × 0.5–1.5, hue ±36°, each with `probability` (the ranges of SSD).

    All four together are one affine map of the colours: saturation scales the distance from grey,
    hue rotates around the grey axis.
    """
    own = numbers[:, _COLORS]
    on = own[:, :4] < probability
    brightness = np.where(on[:, 0], 64 * own[:, 4] - 32, 0)
    contrast = np.where(on[:, 1], 0.5 + own[:, 5], 1)[:, None, None]
    saturation = np.where(on[:, 2], 0.5 + own[:, 6], 1)[:, None, None]
    hue = np.where(on[:, 3], 72 * own[:, 7] - 36, 0)
    matrices = contrast * (
        _rotation(np.deg2rad(hue)) @ (saturation * np.eye(3) + (1 - saturation) * _GREY)
    )
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
