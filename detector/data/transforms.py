"""Augmentation of one image and its faces, as RetinaFace's: crop, resize, colour, flip.

Everything after the crop works on the small resized uint8 image; randomness comes from the
generator that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from detector.recipe import Augmentation

PAD = (104, 117, 123)  # BGR mean of ImageNet: what a crop shows beyond the image
TRIES = 50
FLIPPED_LANDMARKS = (1, 0, 2, 4, 3)  # left and right eye, left and right mouth corner swap
_GREY = np.array([0.114, 0.587, 0.299])  # BGR weights of BT.601


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces of one image, in its pixels."""

    boxes: np.ndarray
    """float32 [N, 4]: x1, y1, x2, y2."""
    landmarks: np.ndarray
    """float32 [N, 5, 2]; NaN where unknown."""
    ignore: np.ndarray
    """bool [N]."""

    def __getitem__(self, kept: np.ndarray) -> Faces:
        return Faces(self.boxes[kept], self.landmarks[kept], self.ignore[kept])

    @property
    def centres(self) -> np.ndarray:
        """[N, 2]: x, y."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def moved(self, scale: float | np.ndarray, shift: np.ndarray) -> Faces:
        """Every point p becomes (p - shift) * scale; both are x, y or one number."""
        scale = np.broadcast_to(np.asarray(scale, np.float32), 2)
        shift = np.broadcast_to(np.asarray(shift, np.float32), 2)
        boxes = (self.boxes - np.tile(shift, 2)) * np.tile(scale, 2)
        return Faces(boxes, (self.landmarks - shift) * scale, self.ignore)


@dataclass(frozen=True, eq=False)
class Transform:
    """A random view of an image, drawn before any pixel of it is touched."""

    window: tuple[int, int, int]
    """x, y and side of the square crop, in whole px of the image; it may reach beyond it."""
    color: np.ndarray | None
    """float64 [3, 4]: BGR becomes color[:, :3] @ BGR + color[:, 3]; none: as it is."""
    flip: bool
    """Left and right exchanged, after the crop."""

    def faces(self, faces: Faces, size: int, min_face: float) -> Faces:
        """The faces of the image whose centre is in the crop, in px of that once it is scaled to
        `size` px, clipped to it; those of less than `min_face` px are to be ignored."""
        faces = crop_faces(faces, self.window, size)
        if self.flip:
            faces = flip_faces(faces, size)
        small = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1) < min_face
        return Faces(faces.boxes, faces.landmarks, faces.ignore | small)

    def image(self, image: np.ndarray, out: np.ndarray) -> None:
        """Writes the view of `image` (uint8 [H, W, 3] BGR) to `out` (uint8 [size, size, 3])."""
        crop_image(image, self.window, out)
        if self.color is not None:
            recolor(out, self.color)
        if self.flip:
            cv2.flip(out, 1, dst=out)


def sample(size: tuple[int, int], faces: Faces, settings: Augmentation,
           rng: np.random.Generator) -> Transform:
    """A random view of an image of `size` (width, height) px with these faces."""
    window = choose_window(size, faces, settings.scales, rng)
    color = sample_color(settings.photometric, rng)
    return Transform(window, color, bool(rng.random() < settings.flip))


def augment(image: np.ndarray, faces: Faces, size: int, settings: Augmentation,
            rng: np.random.Generator) -> tuple[np.ndarray, Faces]:
    """A random view of the image for training.

    Args:
        image: uint8 [H, W, 3] BGR.
        faces: in pixels of `image`.
        size: side of the result in px.

    Returns:
        uint8 [size, size, 3] BGR, and the faces whose centre is in it, clipped to it.
    """
    transform, out = sample(image.shape[1::-1], faces, settings, rng), np.empty(
        (size, size, 3), np.uint8)
    transform.image(image, out)
    return out, transform.faces(faces, size, settings.min_face)


def choose_window(size: tuple[int, int], faces: Faces, scales: tuple[float, ...],
                  rng: np.random.Generator) -> tuple[int, int, int]:
    """A random square x, y, side in whole px, as RetinaFace draws it.

    Its side is a random share of the image's short side. Of TRIES squares the first one that
    holds a whole face is taken, else the first that holds a face's centre, else one drawn around
    a face. An image without faces takes the first.
    """
    width, height = size
    sides = np.maximum(1, np.rint(min(size) * rng.choice(scales, TRIES))).astype(int)
    # a square larger than the image has the image somewhere within it
    spare = np.stack([width - sides, height - sides], axis=1)
    corners = np.minimum(spare, 0) + np.floor(
        rng.random((TRIES, 2)) * (np.abs(spare) + 1)).astype(int)
    learnt = faces[~faces.ignore]
    if not len(learnt.boxes):
        return int(corners[0, 0]), int(corners[0, 1]), int(sides[0])
    low, high = corners[:, None], (corners + sides[:, None])[:, None]
    whole = ((learnt.boxes[:, :2] >= low) & (learnt.boxes[:, 2:] <= high)).all(axis=2)
    centred = ((learnt.centres > low) & (learnt.centres < high)).all(axis=2)
    for found in (whole.any(axis=1), centred.any(axis=1)):
        if found.any():
            i = int(found.argmax())
            return int(corners[i, 0]), int(corners[i, 1]), int(sides[i])
    side = int(sides[0])
    centre = learnt.centres[rng.integers(len(learnt.boxes))]
    corner = np.floor(centre - side * rng.uniform(0.2, 0.8, 2))
    limits = np.array(size) - side
    corner = np.clip(corner, np.minimum(limits, 0), np.maximum(limits, 0))
    return int(corner[0]), int(corner[1]), side


def crop(image: np.ndarray, faces: Faces, window: tuple[int, int, int], size: int,
         ) -> tuple[np.ndarray, Faces]:
    """The window of the image, scaled to `size` px square, and the faces with their centre in it.
    """
    out = np.empty((size, size, 3), np.uint8)
    crop_image(image, window, out)
    return out, crop_faces(faces, window, size)


def crop_image(image: np.ndarray, window: tuple[int, int, int], out: np.ndarray) -> None:
    """Writes the window of the image, PAD beyond it, to `out` (uint8 [size, size, 3]): by areas
    where it shrinks, else linear."""
    x, y, side = window
    height, width = image.shape[:2]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + side, width), min(y + side, height)
    view = image[top:bottom, left:right]
    if view.shape[:2] != (side, side):
        view = cv2.copyMakeBorder(view, top - y, y + side - bottom, left - x, x + side - right,
                                  cv2.BORDER_CONSTANT, value=PAD)
    cv2.resize(view, out.shape[1::-1], dst=out,
               interpolation=cv2.INTER_AREA if side > len(out) else cv2.INTER_LINEAR)


def crop_faces(faces: Faces, window: tuple[int, int, int], size: int) -> Faces:
    """The faces with their centre in the window, in px of that once it is scaled to `size` px.

    Boxes are clipped; landmarks outside become unknown; boxes without area are dropped.
    """
    x, y, side = window
    centres = faces.centres - (x, y)
    faces = faces[((centres > 0) & (centres < side)).all(axis=1)]
    faces = faces.moved(size / side, np.array([x, y]))
    boxes, landmarks = faces.boxes.clip(0, size), faces.landmarks
    outside = ~((landmarks >= 0) & (landmarks <= size)).all(axis=2)
    landmarks = np.where(outside[:, :, None], np.float32(np.nan), landmarks)
    faces = Faces(boxes, landmarks, faces.ignore)
    return faces[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def flip(image: np.ndarray, faces: Faces) -> tuple[np.ndarray, Faces]:
    """Left and right exchanged, in the landmarks' names too; writes to `image`."""
    return cv2.flip(image, 1, dst=image), flip_faces(faces, image.shape[1])


def flip_faces(faces: Faces, width: int) -> Faces:
    """Faces of the mirror image."""
    boxes, landmarks = faces.boxes.copy(), faces.landmarks[:, FLIPPED_LANDMARKS].copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    landmarks[..., 0] = width - landmarks[..., 0]
    return Faces(boxes, landmarks, faces.ignore)


def sample_color(probability: float, rng: np.random.Generator) -> np.ndarray | None:
    """Brightness ±32, contrast and saturation × 0.5–1.5, hue ±36°, each with `probability`: SSD's
    ranges.

    All four are one affine map of the colours (float64 [3, 4], BGR; none: nothing changes):
    saturation scales the distance from grey, hue turns around the grey axis.
    """
    on = rng.random(4) < probability
    brightness, contrast, saturation, hue = rng.uniform(
        (-32, 0.5, 0.5, -36), (32, 1.5, 1.5, 36))
    if not on.any():
        return None
    matrix = np.eye(3)
    if on[2]:
        matrix = saturation * matrix + (1 - saturation) * _GREY
    if on[3]:
        matrix = _turn(np.deg2rad(hue)) @ matrix
    if on[1]:
        matrix = contrast * matrix
    return np.column_stack([matrix, np.full(3, brightness if on[0] else 0.0)])


def recolor(image: np.ndarray, color: np.ndarray) -> None:
    """Applies what `sample_color` gives; writes to `image` (uint8 [H, W, 3] BGR)."""
    if (color[:, :3] == color[0, 0] * np.eye(3)).all():  # a table is faster
        table = np.arange(256) * color[0, 0] + color[0, 3]
        cv2.LUT(image, np.rint(table).clip(0, 255).astype(np.uint8), dst=image)
    else:
        cv2.transform(image, color, dst=image)


def _turn(angle: float) -> np.ndarray:
    """[3, 3]: rotation of colours around grey (Rodrigues' formula for the axis (1, 1, 1))."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return (np.cos(angle) * np.eye(3) + np.sin(angle) * cross
            + (1 - np.cos(angle)) * np.outer(axis, axis))
