"""Augmentation of images and their faces, as RetinaFace's: crop, resize, colour, flip.

What a batch will show is drawn for all its images at once, before any pixel is touched; everything
after the crop works on the small resized uint8 image. Randomness comes from numbers that are handed
in, so that an image looks the same whoever renders it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from detector.config.recipe import Augmentation

PAD = (104, 117, 123)  # BGR mean of ImageNet: what a crop shows beyond the image
TRIES = 50
FLIPPED_LANDMARKS = (1, 0, 2, 4, 3)  # left and right eye, left and right mouth corner swap
_GREY = np.array([0.114, 0.587, 0.299])  # BGR weights of BT.601
_SCALES, _CORNERS = slice(0, TRIES), slice(TRIES, 3 * TRIES)
_FACE, _PLACE, _FLIP = 3 * TRIES, slice(3 * TRIES + 1, 3 * TRIES + 3), 3 * TRIES + 3
_COLORS = slice(3 * TRIES + 4, 3 * TRIES + 12)
NUMBERS = 3 * TRIES + 12
"""Random numbers in [0, 1) that decide how an image is seen."""


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
    """int64 [N], ascending: the image of a batch that each face is in; none: one image's faces."""

    def __getitem__(self, kept: np.ndarray) -> Faces:
        return Faces(
            self.boxes[kept],
            self.landmarks[kept],
            self.ignore[kept],
            None if self.image is None else self.image[kept],
        )

    @property
    def centres(self) -> np.ndarray:
        """[N, 2]: x, y."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def batched(self) -> Faces:
        """With `image`: those of one image are in image 0."""
        return (
            self
            if self.image is not None
            else Faces(self.boxes, self.landmarks, self.ignore, np.zeros(len(self.boxes), np.int64))
        )

    def moved(self, scale: float | np.ndarray, shift: np.ndarray) -> Faces:
        """Every point p becomes (p - shift) * scale; both are x, y or one number, or x, y for each
        face."""
        scale = np.broadcast_to(np.asarray(scale, np.float32), (len(self.boxes), 2))
        shift = np.broadcast_to(np.asarray(shift, np.float32), (len(self.boxes), 2))
        boxes = (self.boxes - np.tile(shift, 2)) * np.tile(scale, 2)
        return Faces(
            boxes, (self.landmarks - shift[:, None]) * scale[:, None], self.ignore, self.image
        )


@dataclass(frozen=True, eq=False)
class Transforms:
    """Random views of the images of a batch."""

    windows: np.ndarray
    """int64 [B, 3]: x, y and side of the square crops, in whole px of the images; they may reach
    beyond them."""
    colors: np.ndarray
    """float64 [B, 3, 4]: BGR becomes color[:, :3] @ BGR + color[:, 3]."""
    flips: np.ndarray
    """bool [B]: left and right exchanged, after the crop."""

    def __len__(self) -> int:
        return len(self.flips)

    def __getitem__(self, images: slice) -> Transforms:
        return Transforms(self.windows[images], self.colors[images], self.flips[images])

    def faces(self, faces: Faces, size: int, min_face: float) -> Faces:
        """The faces of the images whose centre is in the crop, in px of that once it is scaled to
        `size` px, clipped to it; those of less than `min_face` px are to be ignored."""
        faces = crop_faces(faces, self.windows, size)
        faces = _flip_where(faces, self.flips, size)
        small = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1) < min_face
        return Faces(faces.boxes, faces.landmarks, faces.ignore | small, faces.image)

    def render(self, number: int, image: np.ndarray, out: np.ndarray) -> None:
        """Writes what is seen of an image (uint8 [H, W, 3] BGR), the batch's `number`-th, to `out`
        (uint8 [size, size, 3])."""
        crop_image(image, self.windows[number], out)
        recolor(out, self.colors[number])
        if self.flips[number]:
            cv2.flip(out, 1, dst=out)


def sample(
    sizes: np.ndarray, faces: Faces, settings: Augmentation, numbers: np.ndarray
) -> Transforms:
    """Random views.

    Args:
        sizes: int [B, 2]: width and height of the images in px.
        faces: of the images.
        numbers: float64 [B, NUMBERS] in [0, 1), each at random.
    """
    windows = choose_windows(sizes, faces, settings.scales, numbers)
    return Transforms(
        windows, sample_colors(settings.photometric, numbers), numbers[:, _FLIP] < settings.flip
    )


def augment(
    image: np.ndarray, faces: Faces, size: int, settings: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, Faces]:
    """A random view of one image for training.

    Args:
        image: uint8 [H, W, 3] BGR.
        faces: in pixels of `image`.
        size: side of the result in px.

    Returns:
        uint8 [size, size, 3] BGR, and the faces whose centre is in it, clipped to it.
    """
    transforms = sample(
        np.array([image.shape[1::-1]]), faces.batched, settings, rng.random((1, NUMBERS))
    )
    out = np.empty((size, size, 3), np.uint8)
    transforms.render(0, image, out)
    return out, transforms.faces(faces.batched, size, settings.min_face)


def choose_windows(
    sizes: np.ndarray, faces: Faces, scales: tuple[float, ...], numbers: np.ndarray
) -> np.ndarray:
    """int64 [B, 3]: for each image a random square x, y, side in whole px, as RetinaFace draws it.

    Its side is a random share of the image's short side. Of TRIES squares the first one that
    holds a whole face is taken, else the first that holds a face's centre, else one drawn around
    a face. An image without faces takes the first. Arguments as those of `sample`.
    """
    drawn = np.asarray(scales)[(numbers[:, _SCALES] * len(scales)).astype(int)]
    sides = np.maximum(1, np.rint(sizes.min(axis=1)[:, None] * drawn)).astype(np.int64)  # [B, T]
    # a square larger than the image has the image somewhere within it
    spare = sizes[:, None] - sides[:, :, None]  # [B, T, 2]
    places = numbers[:, _CORNERS].reshape(len(sizes), TRIES, 2)
    corners = np.minimum(spare, 0) + np.floor(places * (np.abs(spare) + 1)).astype(np.int64)

    images = np.arange(len(sizes))
    tries = np.zeros(len(sizes), np.int64)
    faces = faces.batched
    learnt = faces[~faces.ignore]
    first = np.searchsorted(learnt.image, images)
    counts = np.searchsorted(learnt.image, images, "right") - first
    some = counts > 0
    if some.any():
        owner = learnt.image
        low = corners[owner].astype(np.float32)
        high = low + sides[owner][:, :, None].astype(np.float32)  # [N, T, 2]
        boxes, centres = learnt.boxes[:, None], learnt.centres[:, None]
        whole = ((boxes[..., :2] >= low) & (boxes[..., 2:] <= high)).all(axis=2)
        centred = ((centres > low) & (centres < high)).all(axis=2)
        worth = np.maximum.reduceat(np.maximum(2 * whole, centred), first[some], axis=0)  # [·, T]
        tries[some] = worth.argmax(axis=1)
    windows = np.concatenate([corners[images, tries], sides[images, tries, None]], axis=1)
    if some.any() and (lost := worth.max(axis=1) == 0).any():
        missed = images[some][lost]
        windows[missed] = _around(
            sizes[missed],
            sides[missed, 0],
            learnt.centres[first[missed] + (numbers[missed, _FACE] * counts[missed]).astype(int)],
            numbers[missed, _PLACE],
        )
    return windows


def _around(
    sizes: np.ndarray, sides: np.ndarray, centres: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Squares [B, 3] of the given sides around given points, within the images where possible."""
    corners = np.floor(centres - sides[:, None] * (0.2 + 0.6 * places))
    limits = sizes - sides[:, None]
    corners = np.clip(corners, np.minimum(limits, 0), np.maximum(limits, 0))
    return np.concatenate([corners, sides[:, None]], axis=1).astype(np.int64)


def choose_window(
    size: tuple[int, int], faces: Faces, scales: tuple[float, ...], rng: np.random.Generator
) -> tuple[int, int, int]:
    """`choose_windows` of one image."""
    numbers = rng.random((1, NUMBERS))
    x, y, side = choose_windows(np.array([size]), faces, scales, numbers)[0].tolist()
    return x, y, side


def crop(
    image: np.ndarray,
    faces: Faces,
    window: tuple[int, int, int],
    size: int,
) -> tuple[np.ndarray, Faces]:
    """The window of the image scaled to `size` px square, and the faces with centres in it."""
    out = np.empty((size, size, 3), np.uint8)
    crop_image(image, window, out)
    return out, crop_faces(faces.batched, np.array([window]), size)


def crop_image(
    image: np.ndarray, window: tuple[int, int, int] | np.ndarray, out: np.ndarray
) -> None:
    """Writes the window of the image, PAD beyond it, to `out` (uint8 [size, size, 3]): by areas
    where it shrinks, else linear."""
    x, y, side = map(int, window)
    height, width = image.shape[:2]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + side, width), min(y + side, height)
    view = image[top:bottom, left:right]
    if view.shape[:2] != (side, side):
        view = cv2.copyMakeBorder(
            view,
            top - y,
            y + side - bottom,
            left - x,
            x + side - right,
            cv2.BORDER_CONSTANT,
            value=PAD,
        )
    cv2.resize(
        view,
        out.shape[1::-1],
        dst=out,
        interpolation=cv2.INTER_AREA if side > len(out) else cv2.INTER_LINEAR,
    )


def crop_faces(faces: Faces, windows: np.ndarray, size: int) -> Faces:
    """The faces with their centre in the window of their image (int [B, 3]), in px of that once it
    is scaled to `size` px.

    Boxes are clipped; landmarks outside become unknown; boxes without area are dropped.
    """
    corner, side = windows[faces.image, :2], windows[faces.image, 2:]
    centres = faces.centres - corner
    kept = ((centres > 0) & (centres < side)).all(axis=1)
    faces = faces[kept].moved((size / side)[kept], corner[kept])
    boxes, landmarks = faces.boxes.clip(0, size), faces.landmarks
    outside = ~((landmarks >= 0) & (landmarks <= size)).all(axis=2)
    landmarks = np.where(outside[:, :, None], np.float32(np.nan), landmarks)
    faces = Faces(boxes, landmarks, faces.ignore, faces.image)
    return faces[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def flip(image: np.ndarray, faces: Faces) -> tuple[np.ndarray, Faces]:
    """Left and right exchanged, in the landmarks' names too; writes to `image`."""
    return cv2.flip(image, 1, dst=image), _flip_where(
        faces.batched, np.array([True]), image.shape[1]
    )


def _flip_where(faces: Faces, flips: np.ndarray, width: int) -> Faces:
    """The faces of images `width` px wide, of which those where `flips` (bool [B]) says so are
    mirrored."""
    mirrored = flips[faces.image]
    boxes, landmarks = faces.boxes.copy(), faces.landmarks.copy()
    boxes[mirrored, 0::2] = width - faces.boxes[mirrored, 2::-2]
    turned = faces.landmarks[mirrored][:, FLIPPED_LANDMARKS]
    turned[..., 0] = width - turned[..., 0]
    landmarks[mirrored] = turned
    return Faces(boxes, landmarks, faces.ignore, faces.image)


def sample_colors(probability: float, numbers: np.ndarray) -> np.ndarray:
    """float64 [B, 3, 4], see `Transforms.colors`: brightness ±32, contrast and saturation
    × 0.5–1.5, hue ±36°, each with `probability`: SSD's ranges.

    All four are one affine map of the colours: saturation scales the distance from grey, hue turns
    around the grey axis.
    """
    own = numbers[:, _COLORS]
    on = own[:, :4] < probability
    brightness = np.where(on[:, 0], 64 * own[:, 4] - 32, 0)
    contrast = np.where(on[:, 1], 0.5 + own[:, 5], 1)[:, None, None]
    saturation = np.where(on[:, 2], 0.5 + own[:, 6], 1)[:, None, None]
    hue = np.where(on[:, 3], 72 * own[:, 7] - 36, 0)
    matrices = contrast * (
        _turn(np.deg2rad(hue)) @ (saturation * np.eye(3) + (1 - saturation) * _GREY)
    )
    offsets = np.broadcast_to(brightness[:, None, None], (len(numbers), 3, 1))
    return np.concatenate([matrices, offsets], axis=2)


def recolor(image: np.ndarray, color: np.ndarray) -> None:
    """Applies one of `sample_colors`; writes to `image` (uint8 [H, W, 3] BGR)."""
    if (color[:, :3] == color[0, 0] * np.eye(3)).all():  # a table is faster
        if color[0, 0] == 1 and color[0, 3] == 0:
            return
        table = np.arange(256) * color[0, 0] + color[0, 3]
        cv2.LUT(image, np.rint(table).clip(0, 255).astype(np.uint8), dst=image)
    else:
        cv2.transform(image, color, dst=image)


def _turn(angle: float | np.ndarray) -> np.ndarray:
    """[..., 3, 3]: rotation of colours around grey (Rodrigues' formula for the axis (1, 1, 1));
    exactly the identity for 0."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cos, sin = np.cos(angle)[..., None, None], np.sin(angle)[..., None, None]
    return cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)
