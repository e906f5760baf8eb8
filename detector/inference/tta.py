"""The sizes and mirrorings in which an image is looked at, and one result from all of them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou, nms

from detector.boxes.postprocess import Detections
from detector.config.recipe import Evaluation
from detector.data.transforms import FLIPPED_LANDMARKS

MAX_PIXELS = 4096 * 4096
"""Of what the network sees; larger pictures are scaled down."""
VOTE_IOU = 0.5
"""Boxes that overlap a kept one by more have a vote on where it is."""


def view_size(size: tuple[int, int], settings: Evaluation, factor: float = 1.0) -> tuple[int, int]:
    """(width, height) px in which an image of `size` (width, height) is looked at.

    Args:
        factor: of the test size, one of `settings.scales`.
    """
    short, long = max(min(size), 1), max(*size, 1)
    scale = 1.0
    if settings.short is not None:  # up, too: RetinaFace's test at 1600 / 2150
        scale = min(settings.short / short, (settings.size or np.inf) / long)
    elif settings.size is not None:
        scale = min(1.0, settings.size / long)
    scale = min(scale * factor, (MAX_PIXELS / (short * long)) ** 0.5)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image in another (width, height); in its own as it is."""
    if image.shape[1::-1] == size:
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def scaled(found: Detections, scale: tuple[float, float]) -> Detections:
    """The same in px of which there are `scale` (along x and y) for each before; float64."""
    both = torch.tensor(scale, dtype=torch.float64)
    return Detections(
        found.boxes * both.repeat(2),
        found.scores,
        None if found.landmarks is None else found.landmarks * both,
    )


def mirrored(found: Detections, width: float) -> Detections:
    """The same in the image's mirror image, left and right exchanged in the landmarks' names too.

    Args:
        width: of the image, in px of the detections.
    """
    boxes = found.boxes.clone()
    boxes[:, [0, 2]] = width - found.boxes[:, [2, 0]]
    points = found.landmarks
    if points is not None:
        points = points[:, FLIPPED_LANDMARKS].clone()
        points[..., 0] = width - points[..., 0]
    return Detections(boxes, found.scores, points)


def vote(views: Sequence[Detections], settings: Evaluation) -> Detections:
    """One result from those of several views of an image, all in the same px.

    NMS over all of them; then each kept box, and its landmarks, become the mean of all that
    overlap it by more than `VOTE_IOU`, weighted by score: box voting, S. Gidaris, N. Komodakis:
    Object detection via a multi-region & semantic segmentation-aware CNN model, ICCV 2015.
    Scores are those of the kept boxes.
    """
    boxes = torch.cat([found.boxes for found in views])
    scores = torch.cat([found.scores for found in views])
    kept = nms(boxes, scores.to(boxes), settings.nms_iou)[: settings.keep]
    weights = (box_iou(boxes[kept], boxes) > VOTE_IOU) * scores.to(boxes)
    weights[torch.arange(len(kept)), kept] = scores[kept].to(boxes)  # one without area, too
    weights /= weights.sum(dim=1, keepdim=True)
    landmarks = None
    if all(found.landmarks is not None for found in views):
        points = torch.cat([found.landmarks for found in views])
        landmarks = (weights @ points.flatten(1)).reshape(-1, *points.shape[1:])
    return Detections(weights @ boxes, scores[kept], landmarks)
