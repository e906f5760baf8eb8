"""Labels whose width and height are not those of their image."""

import json

import cv2
import helpers
import numpy as np
import pytest

from detector.base.errors import UserError
from detector.config.recipe import DataChoice, Evaluation
from detector.data.annotations.formats import read_any
from detector.data.cache import cache_images
from detector.data.convert import with_sizes
from detector.data.open import open_data
from detector.data.types import why_unreadable
from detector.inference.predict import detect
from detector.network.model import build_detector


def _coco(root, sizes):
    """val images of 80×60 px, of which a COCO file tells these sizes."""
    (root / "val" / "images" / "e").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, faces = [], []
    for i, (width, height) in enumerate(sizes):
        name = f"e/{i}.jpg"
        cv2.imwrite(str(root / "val" / "images" / name), np.full((60, 80, 3), 99, np.uint8))
        images.append({"id": i, "file_name": name, "width": width, "height": height})
        faces.append({"image_id": i, "category_id": 1, "bbox": [9, 9, 9, 9]})
    content = {"images": images, "annotations": faces, "categories": [{"id": 1, "name": "face"}]}
    (root / "annotations" / "val.json").write_text(json.dumps(content))
    return open_data(DataChoice(path=str(root)), ("val",)).val


def test_an_image_of_another_shape_is_skipped_and_counted(tmp_path):
    """Its boxes would be stretched; those of an image with an EXIF rotation are elsewhere."""
    # equal; rotated; twice as large; a square; 33.33 rounded; neither
    images = _coco(tmp_path, [(80, 60), (60, 80), (160, 120), (160, 160), (33, 25), (33, 29)])
    cache = cache_images(images, tmp_path / "cache", None)
    assert cache.skipped == ["e/1.jpg", "e/3.jpg", "e/5.jpg"]
    why = why_unreadable(images, "e/1.jpg")
    path = tmp_path / "val" / "images" / "e" / "1.jpg"
    assert why.startswith(f"{path}: has 80×60 px as stored, but 60×80 by its label; correct")
    model, unreadable = build_detector(helpers.TINY_DETECTOR), []
    detect(model, helpers.TINY_DETECTOR, images, Evaluation(), unreadable=unreadable)
    assert sorted(unreadable) == cache.skipped


def test_an_annotation_of_other_images_is_one_line(tmp_path):
    images = _coco(tmp_path, [(60, 80)] * 2)
    with pytest.raises(UserError, match=r"none of its 2 images .*0.jpg: has 80×60 .* 60×80 by its"):
        cache_images(images, tmp_path / "cache", None)


def test_a_conversion_reports_other_sizes(tmp_path):
    _coco(tmp_path, [(80, 60), (60, 80)])
    annotation, notes = read_any(tmp_path / "annotations" / "val.json"), []
    found = with_sizes(annotation, tmp_path / "val" / "images", notes)
    assert [image.size for image in found.images] == [(80, 60)] * 2
    (note,) = notes
    assert "1 of 2 images have another size" in note and "e/1.jpg has 80×60 px, not 60×80" in note
