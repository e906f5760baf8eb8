"""Square crops of images and their faces: sampled by two rules, cut out, resized."""

from __future__ import annotations

import cv2
import numpy as np

from detector.config.recipe import Augmentation
from detector.data.faces import Faces
from detector.data.random_numbers import CORNERS, FACE, INTERPOLATION, OFFSET, SCALES, TRIES

SQUARES_OF_A_SCALE = 250
"""RandomSquareCrop's: after so many squares without a face's centre it takes another scale."""
_MOST_SCALES = 20
_INTERPOLATIONS = np.array(
    [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_LANCZOS4]
)


def sample_windows(
    sizes: np.ndarray, faces: Faces, settings: Augmentation, numbers: np.ndarray
) -> np.ndarray:
    """int64 [B, 3]: a random square x, y, side in px for each image.

    Its side is a random share of the image's short side. A square larger than the image contains
    it. An image without faces takes the first square. Of TRIES squares,

    - `whole_face` takes the first that contains a complete face, or else the first that contains a
      face's centre, or else one around a random face; each square has a scale of its own.
    - `face_centre` takes the first that contains a face's centre; all have the same scale. If none
      does, it goes on as RandomSquareCrop would, with random numbers that follow from these.

    Arguments as for `transforms.sample`.
    """
    whole_face = settings.crop == "whole_face"
    scales = np.asarray(settings.scales)
    own = numbers[:, SCALES] if whole_face else numbers[:, SCALES][:, :1]
    shares = scales[(own * len(scales)).astype(int)]
    sides, corners = _squares(sizes, shares, numbers[:, CORNERS].reshape(len(sizes), TRIES, 2))

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
        rank = ((centres > low) & (centres < high)).all(axis=2).astype(np.int64)
        if whole_face:
            whole = ((boxes[..., :2] >= low) & (boxes[..., 2:] <= high)).all(axis=2)
            rank = np.maximum(2 * whole, rank)
        best = np.maximum.reduceat(rank, first[has_faces], axis=0)  # [·, T]
        tries[has_faces] = best.argmax(axis=1)
    chosen = sides[images, tries if whole_face else 0]
    windows = np.concatenate([corners[images, tries], chosen[:, None]], axis=1)
    if has_faces.any() and (no_face := best.max(axis=1) == 0).any():
        missed = images[has_faces][no_face]
        windows[missed] = _around(
            sizes[missed],
            sides[missed, 0],
            targets.centres[first[missed] + (numbers[missed, FACE] * counts[missed]).astype(int)],
            numbers[missed, OFFSET],
        )
        for image in missed if not whole_face else ():
            found = _search(
                sizes[image],
                targets.centres[first[image] : first[image] + counts[image]],
                settings.scales,
                shares[image, 0],
                np.random.default_rng(int(numbers[image, FACE] * 2**53)),
            )
            windows[image] = windows[image] if found is None else found
    return windows


def _squares(
    sizes: np.ndarray, shares: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sides [B, T or 1] and corners [B, T, 2] of random squares, int64.

    Args:
        sizes: int [B, 2]: width and height of the images.
        shares: [B, T or 1]: sides as shares of the short side.
        offsets: [B, T, 2], uniform in [0, 1).
    """
    sides = np.maximum(1, np.rint(sizes.min(axis=1)[:, None] * shares)).astype(np.int64)
    # a square larger than the image contains it
    spare = sizes[:, None] - sides[:, :, None]
    corners = np.minimum(spare, 0) + np.floor(offsets * (np.abs(spare) + 1)).astype(np.int64)
    return sides, corners


def _search(
    size: np.ndarray,
    centres: np.ndarray,
    scales: tuple[float, ...],
    share: float,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """What RandomSquareCrop takes after TRIES squares of the scale `share` without a face's centre:
    the first of its other squares that has one, or else of another scale's, and so on; a random
    scale if any is above 1, otherwise one of 1.2 times the size. None if no scale has one."""
    count = SQUARES_OF_A_SCALE - TRIES
    for _ in range(_MOST_SCALES):
        sides, corners = _squares(size[None], np.array([[share]]), rng.random((1, count, 2)))
        low = corners[0][:, None]  # [T, 1, 2]
        hits = ((centres > low) & (centres < low + sides[0, 0])).all(axis=2).any(axis=1)
        if hits.any():
            return np.append(corners[0, hits.argmax()], sides[0, 0])
        share = rng.choice(scales) if max(scales) > 1 else 1.2 * share
        count = SQUARES_OF_A_SCALE
    return None


def _around(
    sizes: np.ndarray, sides: np.ndarray, centres: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Squares [B, 3] of the given sides around the given points, inside the images if possible."""
    corners = np.floor(centres - sides[:, None] * (0.2 + 0.6 * offsets))
    limits = sizes - sides[:, None]
    corners = np.clip(corners, np.minimum(limits, 0), np.maximum(limits, 0))
    return np.concatenate([corners, sides[:, None]], axis=1).astype(np.int64)


def sample_interpolations(settings: Augmentation, numbers: np.ndarray) -> np.ndarray | None:
    """int [B]: OpenCV's interpolation of each crop; None means area if it shrinks, else linear."""
    if settings.interpolation == "area_linear":
        return None
    return _INTERPOLATIONS[(numbers[:, INTERPOLATION] * len(_INTERPOLATIONS)).astype(int)]


def crop_image(
    image: np.ndarray,
    window: np.ndarray | tuple[int, int, int],
    out: np.ndarray,
    padding: tuple[int, int, int],
    interpolation: int | None = None,
) -> None:
    """Writes the window of the image to `out` (uint8 [size, size, 3]).

    Args:
        padding: BGR colour beyond the image.
        interpolation: one of OpenCV's; None means area if the window shrinks, otherwise linear.
    """
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
            value=padding,
        )
    if interpolation is None:
        interpolation = cv2.INTER_AREA if side > len(out) else cv2.INTER_LINEAR
    cv2.resize(window_pixels, out.shape[1::-1], dst=out, interpolation=interpolation)


def crop_faces(faces: Faces, windows: np.ndarray, size: int, clip_boxes: bool = True) -> Faces:
    """The faces with centres in the windows (int [B, 3]) of their images, in px of the windows
    resized to `size` px.

    Boxes are clipped if `clip_boxes`, landmarks outside become unknown, boxes without area are
    dropped.
    """
    owner = faces.image_indices
    corner, side = windows[owner, :2], windows[owner, 2:]
    centres = faces.centres - corner
    inside = ((centres > 0) & (centres < side)).all(axis=1)
    faces = faces[inside].moved((size / side)[inside], corner[inside])
    boxes = faces.boxes.clip(0, size) if clip_boxes else faces.boxes
    landmarks = faces.landmarks
    inside = ((landmarks >= 0) & (landmarks <= size)).all(axis=2, keepdims=True)
    landmarks = np.where(inside, landmarks, np.float32(np.nan))
    faces = Faces(boxes, landmarks, faces.ignore, faces.image)
    has_area = boxes[:, 2:] > boxes[:, :2]
    return faces[has_area[:, 0] & has_area[:, 1]]
