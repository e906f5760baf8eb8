"""Whether there are faces to learn from, and faces that count: without them an AP means nothing."""

from __future__ import annotations

from detector.base.errors import UserError
from detector.data.types import ImageSet
from detector.metrics.levels import LEVELS
from detector.metrics.wider import MIN_HEIGHTS, GroundTruth, height_ground_truth


def check_faces(train: ImageSet, scored: ImageSet | None, where: str) -> list[str]:
    """Checks the images of a training before it starts.

    Args:
        scored: the images that it will be scored on, by the height of faces; None means none.
        where: names the data in messages.

    Returns:
        Notes for the user.

    Raises:
        UserError: no training image has a face, or no face that is scored on counts.
    """
    if not any(len(label.boxes) for label in train.labels):
        raise UserError(
            f"{where}: none of the {len(train)} training images has a face, so there is nothing to "
            "learn; check the annotation (a broken export?), or give other --data"
        )
    if scored is None:
        return []
    return check_counted(
        height_ground_truth(scored.labels), f"{where}: the {len(scored)} images to be scored on"
    )


def check_counted(truth: GroundTruth, images: str) -> list[str]:
    """Checks that faces count, at some level.

    Args:
        images: which these are, for messages.

    Returns:
        A note if levels are empty.

    Raises:
        UserError: no face counts at any level.
    """
    empty = [level for level in LEVELS if not truth.counted[level].any()]
    if len(empty) == len(LEVELS):
        raise UserError(
            f"{images} have {len(truth.boxes)} faces, none of which counts at any level, so every "
            f"AP would be 0: a face counts from {MIN_HEIGHTS['hard']} px of height on unless it is "
            "flagged, or as the official lists say; check the annotation and the lists"
        )
    if not empty:
        return []
    return [
        f"{images} have no face that counts as {' or '.join(empty)}, so the AP of "
        f"{'that level is' if len(empty) == 1 else 'those levels is'} 0 by definition, and the "
        f"mean at most {1 - len(empty) / len(LEVELS):.2f}"
    ]
