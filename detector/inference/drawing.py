"""Detections drawn on an image, and as plain data."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detector.boxes.postprocess import Detections

BOX, POINT = (80, 220, 60), (60, 60, 240)  # BGR


def draw(image: np.ndarray, faces: list[dict]) -> np.ndarray:
    """A copy of an image with the boxes, scores and landmarks of `to_plain` drawn on it.

    Args:
        image: uint8 [H, W, 3], BGR.
    """
    drawn = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 600))
    for face in faces:
        x1, y1, x2, y2 = (round(v) for v in face["bbox"])
        cv2.rectangle(drawn, (x1, y1), (x2, y2), BOX, thickness)
        cv2.putText(
            drawn,
            f"{face['score']:.2f}",
            (x1, max(y1 - 3, 8)),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.35 * thickness,
            BOX,
            max(1, thickness // 2),
            cv2.LINE_AA,
        )
        for x, y in face.get("landmarks", ()):
            cv2.circle(drawn, (round(x), round(y)), thickness, POINT, -1, cv2.LINE_AA)
    return drawn


def to_plain(
    detections: Detections, detected_size: Sequence[int], size: tuple[int, int]
) -> list[dict]:
    """`bbox` [x1, y1, x2, y2], `score`, `landmarks` [[x, y] × 5] of each face, highest score first.

    Args:
        detected_size: (height, width) of the image that the detections are in px of.
        size: (height, width) of the image that the result is in px of; boxes are clipped to it.
    """
    scale = np.array([size[1] / detected_size[1], size[0] / detected_size[0]])
    limits = np.array([size[1], size[0]] * 2)
    boxes = (detections.boxes.numpy().astype(np.float64) * np.tile(scale, 2)).clip(0, limits)
    faces = [
        {"bbox": box, "score": score}
        for box, score in zip(
            boxes.round(2).tolist(), detections.scores.numpy().astype(np.float64).round(4).tolist()
        )
    ]
    if detections.landmarks is not None:
        points = (detections.landmarks.numpy().astype(np.float64) * scale).round(2).tolist()
        for face, own in zip(faces, points):
            face["landmarks"] = own
    return faces
