"""Data without faces to learn from, or without faces that count."""

from types import SimpleNamespace

import numpy as np
import pytest

from detector.base.errors import UserError
from detector.data.types import ImageLabel
from detector.metrics.face_counts import check_counted, check_faces
from detector.metrics.wider import height_ground_truth


class Images(SimpleNamespace):
    def __len__(self):
        return len(self.labels)


def images(*heights, ignore=False):
    """Images with one face each, of these heights; none for height 0."""
    labels = []
    for index, height in enumerate(heights):
        boxes = np.array([[0, 0, 10, height]] * (height > 0), np.float32).reshape(-1, 4)
        count = len(boxes)
        landmarks = np.full((count, 5, 2), np.nan, np.float32)
        flags = np.full(count, ignore)
        labels.append(ImageLabel(f"e/{index}.jpg", (99, 99), boxes, landmarks, flags))
    return Images(labels=labels)


def test_no_face_to_learn():
    with pytest.raises(UserError, match="data: none of the 2 training images has a face"):
        check_faces(images(0, 0), images(60), "data")
    assert check_faces(images(0, 5), None, "data") == []


@pytest.mark.parametrize(
    "scored", [images(0, 0), images(10, 10), images(60, ignore=True), images()]
)
def test_no_face_counts(scored):
    with pytest.raises(UserError, match=f"the {len(scored)} images to be scored on have .* none"):
        check_faces(images(60), scored, "data")


def test_levels_without_faces_are_named():
    assert check_faces(images(60), images(60), "data") == []
    (note,) = check_faces(images(60), images(20, 40), "data")
    assert note == (
        "data: the 2 images to be scored on have no face that counts as easy, so the AP of that "
        "level is 0 by definition, and the mean at most 0.67"
    )
    (note,) = check_counted(height_ground_truth(images(20).labels), "these")
    assert "no face that counts as easy or medium, so the AP of those levels" in note
