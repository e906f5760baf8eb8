"""Test-time augmentation (TTA): test sizes, scales, mirror images, and merging by box voting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou, nms

from detector.boxes.postprocess import Detections
from detector.config.detector import Pixels
from detector.config.recipe import Evaluation
from detector.data.transforms import FLIPPED_LANDMARKS

Canvases = tuple[tuple[int, int], ...]
"""(width, height) in px at each scale of an evaluation."""

MAX_PIXELS = 4096 * 4096
"""Most pixels of the network's input; larger images are scaled down."""
STRIDE = 64
"""Sides of the canvas `stride` are multiples of this, in px: that of the coarsest level, P6."""
VOTING_IOU = 0.5
"""Boxes with a higher IoU to a box that NMS keeps vote on its coordinates."""


def input_size(size: tuple[int, int], settings: Evaluation, factor: float = 1.0) -> tuple[int, int]:
    """(width, height) in px of the network's input for an image of `size` (width, height).

    Args:
        factor: multiple of the test size, one of `settings.scales`.
    """
    short, long = max(min(size), 1), max(*size, 1)
    scale = 1.0
    if settings.short is not None:  # scales up, too: RetinaFace's test at 1600 / 2150
        scale = min(settings.short / short, (settings.size or np.inf) / long)
    elif settings.size is not None:
        scale = min(1.0, settings.size / long)
    scale = min(scale * factor, (MAX_PIXELS / (short * long)) ** 0.5)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def canvas_size(
    size: tuple[int, int], settings: Evaluation, factor: float = 1.0
) -> tuple[int, int]:
    """(width, height) in px of what the network sees of an image of `size`: its `input_size`, with
    the padding that the settings ask for.

    Args:
        factor: as for `input_size`.
    """
    width, height = input_size(size, settings, factor)
    if settings.canvas is None or settings.size is None:
        return width, height
    if settings.canvas == "stride":
        return -(-width // STRIDE) * STRIDE, -(-height // STRIDE) * STRIDE
    side = max(width, height, min(round(settings.size * factor), math.isqrt(MAX_PIXELS)))
    return side, side


def canvases(size: tuple[int, int], settings: Evaluation) -> Canvases:
    """The `canvas_size` at each of `settings.scales`; images may share a batch if these agree."""
    return tuple(canvas_size(size, settings, factor) for factor in settings.scales)


def resize_image(
    image: np.ndarray, size: tuple[int, int], interpolation: str = "area_linear"
) -> np.ndarray:
    """The image resized to (width, height); the same array if it has that size.

    Args:
        interpolation: as in `Evaluation`.
    """
    if image.shape[1::-1] == size:
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    by_area = shrinks and interpolation == "area_linear"
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if by_area else cv2.INTER_LINEAR)


def pad_images(images: Sequence[np.ndarray], size: tuple[int, int], pixels: Pixels) -> np.ndarray:
    """uint8 [B, height, width, 3]: the images padded at the right and at the bottom.

    The padding is the mean colour, rounded, which the design normalises to zero but for rounding.

    Args:
        images: uint8 [H, W, 3], BGR, of any sizes.
        size: (width, height), each at least that of the images.
        pixels: of the design.
    """
    mean = pixels.mean if pixels.order == "bgr" else pixels.mean[::-1]
    color = np.clip(np.rint(mean), 0, 255).astype(np.uint8)
    padded = np.empty((len(images), size[1], size[0], 3), np.uint8)
    for canvas, image in zip(padded, images):
        height, width = image.shape[:2]
        canvas[:height, :width] = image
        canvas[height:] = color
        canvas[:height, width:] = color
    return padded


def scale_detections(detections: Detections, scale: tuple[float, float]) -> Detections:
    """Coordinates multiplied by `scale` along x and y; float64."""
    factors = torch.tensor(scale, dtype=torch.float64)
    return Detections(
        detections.boxes * factors.repeat(2),
        detections.scores,
        None if detections.landmarks is None else detections.landmarks * factors,
    )


def flip_detections(detections: Detections, width: float) -> Detections:
    """Mirrored horizontally; left and right landmarks are swapped.

    Args:
        width: of the image, in px of the detections.
    """
    boxes = detections.boxes.clone()
    boxes[:, [0, 2]] = width - detections.boxes[:, [2, 0]]
    points = detections.landmarks
    if points is not None:
        points = points[:, FLIPPED_LANDMARKS].clone()
        points[..., 0] = width - points[..., 0]
    return Detections(boxes, detections.scores, points)


def box_voting(passes: Sequence[Detections], settings: Evaluation) -> Detections:
    """Merges the detections of several forward passes of one image, all in the same px.

    Non-maximum suppression (NMS) over all of them; then each box that NMS keeps, and its landmarks,
    become the mean of all that overlap it by more than `VOTING_IOU`, weighted by score (box voting:
    S. Gidaris, N. Komodakis: Object detection via a multi-region & semantic segmentation-aware CNN
    model, ICCV 2015). Scores remain those of the boxes that NMS keeps.
    """
    boxes = torch.cat([detections.boxes for detections in passes])
    scores = torch.cat([detections.scores for detections in passes])
    selected = nms(boxes, scores.to(boxes), settings.nms_iou)[: settings.keep]
    weights = (box_iou(boxes[selected], boxes) > VOTING_IOU) * scores.to(boxes)
    weights[torch.arange(len(selected)), selected] = scores[selected].to(boxes)  # if without area
    weights /= weights.sum(dim=1, keepdim=True)
    all_points = [d.landmarks for d in passes if d.landmarks is not None]
    landmarks = None
    if len(all_points) == len(passes):
        points = torch.cat(all_points)
        landmarks = (weights @ points.flatten(1)).reshape(-1, *points.shape[1:])
    return Detections(weights @ boxes, scores[selected], landmarks)
