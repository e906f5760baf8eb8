"""WIDER FACE average precision (easy, medium, hard), equal to the usual evaluator in every digit.

S. Yang, P. Luo, C. C. Loy, X. Tang: WIDER FACE: A Face Detection Benchmark, CVPR 2016.
Boxes are x, y, w, h in pixels here, and a box covers w + 1 by h + 1 of them, as in that protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.base.errors import UserError
from detector.data.types import ImageLabel, image_key
from detector.metrics.levels import LEVELS
from detector.metrics.wider_files import read_official_lists

MIN_HEIGHTS = {"easy": 51, "medium": 31, "hard": 11}
"""Least height of a face in a level, in pixels of the original image; agrees with the official
lists for at least 98 % of the faces."""

_STEPS = 1000
_THRESHOLDS = 1 - (np.arange(_STEPS) + 1) / _STEPS  # tested with >=, from strict to loose
_MATCH_IOU = 0.5
_CHUNK = 1 << 17  # pairs of boxes processed together, so that they fit in the CPU's cache


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The faces of a set of images, one image after the other."""

    names: tuple[str, ...]
    """`<event>/<image>` of each image, as `image_key` gives it."""
    counts: np.ndarray
    """int64 [images]: number of faces of each image; may be 0."""
    boxes: np.ndarray
    """float64 [N, 4]: x, y, w, h of all faces."""
    counted: dict[str, np.ndarray]
    """Level → bool [N]: the faces that count; others are ignored, so never missed."""

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, names: Iterable[str]) -> GroundTruth:
        """The ground truth of the named images, in that order (image suffixes do not matter).

        Raises:
            UserError: an image is not in this ground truth.
        """
        positions = {name: position for position, name in enumerate(self.names)}
        keys = [image_key(name) for name in names]
        unknown = [key for key in keys if key not in positions]
        if unknown:
            raise UserError(
                f"{unknown[0]}: not in the ground truth ({len(unknown)} such images); "
                "take images and ground truth from the same set"
            )
        ends = np.cumsum(self.counts)
        indices = [positions[key] for key in keys]
        faces = np.concatenate(
            [np.arange(ends[i] - self.counts[i], ends[i]) for i in indices]
            or [np.zeros(0, dtype=np.int64)]
        )
        return GroundTruth(
            tuple(keys),
            self.counts[np.array(indices, dtype=np.int64)],
            self.boxes[faces],
            {level: mask[faces] for level, mask in self.counted.items()},
        )


def official_ground_truth(folder: Path) -> GroundTruth:
    """The official lists of all 3,226 val images.

    Args:
        folder: holds wider_face_val.mat and wider_{easy,medium,hard}_val.mat.

    Raises:
        UserError: a file is missing or damaged.
    """
    return _ground_truth(*read_official_lists(folder))


def height_ground_truth(labels: Sequence[ImageLabel]) -> GroundTruth:
    """The ground truth by height of faces, for images without official lists (a hold-out of train).

    A face counts in a level from `MIN_HEIGHTS` on; smaller and flagged faces are ignored.
    """
    names: list[str] = []
    boxes: list[np.ndarray] = []
    counted: dict[str, list[np.ndarray]] = {level: [] for level in LEVELS}
    for label in labels:
        corners = np.asarray(label.boxes, dtype=np.float64).reshape(-1, 4)
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        names.append(image_key(label.name))
        boxes.append(xywh)
        for level, height in MIN_HEIGHTS.items():
            counted[level].append((xywh[:, 3] >= height) & ~np.asarray(label.ignore, dtype=bool))
    return _ground_truth(names, boxes, counted)


def _ground_truth(
    names: Sequence[str],
    boxes: Sequence[np.ndarray],
    counted: Mapping[str, Sequence[np.ndarray]],
) -> GroundTruth:
    def joined(arrays, empty):
        return np.concatenate(arrays) if arrays else empty

    return GroundTruth(
        tuple(names),
        np.array([len(b) for b in boxes], dtype=np.int64),
        joined(boxes, np.zeros((0, 4))),
        {level: joined(masks, np.zeros(0, dtype=bool)) for level, masks in counted.items()},
    )


def wider_ap(predictions: Mapping[str, np.ndarray], truth: GroundTruth) -> dict[str, float]:
    """AP of each level, in [0, 1].

    Scores are normalised over the images of `truth`. AP is 0 without detections, with one constant
    score, or without faces that count.

    Args:
        predictions: `<event>/<image>` (suffix or not) → float [n, 5]: x, y, w, h, score, in the
            order of the file, which is not sorted. Missing images have no detections.
    """
    by_key = {image_key(name): rows for name, rows in predictions.items()}
    detections = [
        (image, by_key[name])
        for image, name in enumerate(truth.names)
        if name in by_key and len(by_key[name])
    ]
    if not detections:
        return dict.fromkeys(truth.counted, 0.0)
    rows = np.concatenate([np.asarray(r, dtype=np.float64) for _, r in detections])
    image = np.repeat(
        np.array([i for i, _ in detections], dtype=np.int64),
        np.array([len(r) for _, r in detections]),
    )
    scores = rows[:, 4]
    low, high = min(scores.min(), 1.0), max(scores.max(), 0.0)
    if low == high:  # 0 / 0: no detection reaches any threshold
        return dict.fromkeys(truth.counted, 0.0)
    step = _first_threshold((scores - low) / (high - low), image)
    face = _best_face(rows[:, :4], image, truth)

    matched = np.flatnonzero(face >= 0)
    first_hit = np.full(len(truth.boxes), -1)
    first_hit[face[matched[::-1]]] = matched[::-1]  # the last write wins: the earliest detection
    results = {}
    for level, counts in truth.counted.items():
        hits = np.bincount(step[first_hit[counts & (first_hit >= 0)]], minlength=_STEPS + 1)
        is_proposal = np.ones(len(rows), dtype=bool)
        is_proposal[matched] = counts[face[matched]]
        proposals = np.bincount(step[is_proposal], minlength=_STEPS + 1)
        results[level] = _average_precision(
            np.cumsum(hits[:_STEPS]), np.cumsum(proposals[:_STEPS]), int(counts.sum())
        )
    return results


def _first_threshold(scores: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Index of the strictest threshold at which each detection counts: 0 … 999, or 1000 for never.

    An image's list is cut after the last score that reaches the threshold, so a detection counts as
    soon as its own score or a later one does.
    """
    own = _STEPS - np.searchsorted(_THRESHOLDS[::-1], scores, side="right")
    # A running minimum from the end of each image; offsets keep the images apart.
    ranged = own + image * (2 * _STEPS)
    return np.minimum.accumulate(ranged[::-1])[::-1] - image * (2 * _STEPS)


def _best_face(boxes: np.ndarray, image: np.ndarray, truth: GroundTruth) -> np.ndarray:
    """int64 [n]: index of the face of highest IoU in the same image, first on ties; -1 below 0.5.

    Only pairs that can reach 0.5 are computed. For widths a of the detection, b of the face and
    their overlap i along x, i / (a + b - i) >= IoU, so at 0.5 the centres are at most a / 2 apart;
    sorted by image and centre, the candidate faces are contiguous.
    """
    best = np.full(len(boxes), -1, dtype=np.int64)
    if not len(truth.boxes) or not len(boxes):
        return best
    faces, detections = _corners(truth.boxes), _corners(boxes)
    centre = (faces[:, 0] + faces[:, 2]) / 2
    face_image = np.repeat(np.arange(len(truth)), truth.counts)
    order = np.lexsort((centre, face_image))
    faces = faces[order]
    left, right = centre.min() - 1, centre.max() + 1
    span = right - left + 1  # images one after the other on one axis, so one search does for all
    keys = (face_image * span + centre - left)[order]

    centre = (detections[:, 0] + detections[:, 2]) / 2
    reach = (boxes[:, 2] + 1) / 2 + 1e-3  # with a margin for rounding; the IoU decides
    start = image * span - left
    low = np.searchsorted(keys, start + np.clip(centre - reach, left, right))
    high = np.searchsorted(keys, start + np.clip(centre + reach, left, right), side="right")
    pairs = np.maximum(high - low, 0)
    ends = np.cumsum(pairs)
    begins = ends - pairs
    at = 0
    while at < len(boxes):
        stop = max(at + 1, int(np.searchsorted(ends, begins[at] + _CHUNK, side="right")))
        detection = np.repeat(np.arange(at, stop), pairs[at:stop])
        candidate = np.arange(begins[at], ends[stop - 1]) + np.repeat(
            (low - begins)[at:stop], pairs[at:stop]
        )
        iou = _pair_iou(detections[detection], faces[candidate])
        match = np.flatnonzero(iou >= _MATCH_IOU)
        if match.size:
            _take_highest(best, detection[match], order[candidate[match]], iou[match])
        at = stop
    return best


def _take_highest(best, detection, face, iou) -> None:
    """Writes each detection's face of highest IoU to `best`, the first one on ties.

    Pairs must be sorted by detection.
    """
    first = np.flatnonzero(np.diff(detection, prepend=-1))
    top = np.repeat(np.maximum.reduceat(iou, first), np.diff(first, append=len(iou)))
    best[detection[first]] = np.minimum.reduceat(
        np.where(iou == top, face, np.iinfo(np.int64).max), first
    )


def _corners(boxes: np.ndarray) -> np.ndarray:
    """[n, 5]: x1, y1, x2, y2 and the area, with both corners inclusive."""
    x1, y1 = boxes[:, 0], boxes[:, 1]
    x2, y2 = boxes[:, 2] + x1, boxes[:, 3] + y1
    return np.stack([x1, y1, x2, y2, (x2 - x1 + 1) * (y2 - y1 + 1)], axis=1)


def _pair_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of corresponding rows of corners, with the protocol's order of operations."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + 1
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + 1
    intersection = width * height
    disjoint = (width <= 0) | (height <= 0)
    intersection[disjoint] = 0
    union = a[:, 4] + b[:, 4] - intersection
    union[disjoint] = 1
    return intersection / union


def _average_precision(hits: np.ndarray, proposals: np.ndarray, faces: int) -> float:
    """Area under the VOC envelope of the precision-recall curve.

    Args:
        hits: [1000] faces found at each threshold, from strict to loose.
        proposals: [1000] detections that count at each threshold.
        faces: number of faces that count.
    """
    if not faces:
        return 0.0
    # At strict thresholds both may be 0; recall does not change there, so any value will do.
    precision = hits / np.maximum(proposals, 1)
    recall = np.concatenate([[0.0], hits / faces, [1.0]])
    envelope = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(envelope[::-1])[::-1]
    gains = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[gains + 1] - recall[gains]) * envelope[gains + 1]))
