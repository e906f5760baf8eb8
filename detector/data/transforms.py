"""Augmentation of images and their faces: crop, pad, resize, colour, flip.

The transforms of a batch are sampled for all its images at once, before pixels are read; everything
after the crop works on the small resized uint8 image. Random numbers are arguments, so that the
result does not depend on where an image is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from detector.config.recipe import Augmentation
from detector.data.colors import recolor, sample_colors
from detector.data.crops import crop_faces, crop_image, sample_interpolations, sample_windows
from detector.data.faces import Faces
from detector.data.random_numbers import FLIP, random_numbers

FLIPPED_LANDMARKS = (1, 0, 2, 4, 3)  # left and right eye, left and right mouth corner swap


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
    settings: Augmentation
    """What they were sampled by."""
    interpolations: np.ndarray | None = None
    """int [B]: OpenCV's interpolation of each crop; None means area if it shrinks, else linear."""

    def __len__(self) -> int:
        return len(self.flips)

    def __getitem__(self, images: slice) -> Transforms:
        return Transforms(
            self.windows[images],
            self.colors[images],
            self.flips[images],
            self.settings,
            None if self.interpolations is None else self.interpolations[images],
        )

    def faces(self, faces: Faces, size: int) -> Faces:
        """The faces whose centres are in the crops, in px of the crops resized to `size` px and
        clipped to them unless the settings say otherwise; those smaller than `settings.min_face`
        px are marked as ignored."""
        faces = crop_faces(faces, self.windows, size, self.settings.clip_boxes)
        faces = _flip_where(faces, self.flips, size)
        small = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1) < self.settings.min_face
        return Faces(faces.boxes, faces.landmarks, faces.ignore | small, faces.image)

    def crop(self, number: int, image: np.ndarray, out: np.ndarray) -> None:
        """Writes the crop of the batch's `number`-th image (uint8 [H, W, 3] BGR) to `out` (uint8
        [size, size, 3]), with its colours as they are and not flipped."""
        interpolation = None if self.interpolations is None else int(self.interpolations[number])
        crop_image(image, self.windows[number], out, self.settings.padding, interpolation)

    def render(self, number: int, image: np.ndarray, out: np.ndarray) -> None:
        """As `crop`, with colours changed and flipped."""
        self.crop(number, image, out)
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
    return Transforms(
        sample_windows(sizes, faces, settings, numbers),
        sample_colors(settings, numbers),
        numbers[:, FLIP] < settings.flip,
        settings,
        sample_interpolations(settings, numbers),
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
        uint8 [size, size, 3] BGR, and the faces with centres in it.
    """
    numbers = random_numbers(1, rng, rng.spawn(1)[0])
    transforms = sample(np.array([image.shape[1::-1]]), faces.batched, settings, numbers)
    out = np.empty((size, size, 3), np.uint8)
    transforms.render(0, image, out)
    return out, transforms.faces(faces.batched, size)


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
