"""The two JSON formats, a list of images and COCO: read and written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np

from detector.base.errors import UserError
from detector.base.json_file import parse_json
from detector.base.listing import clean_name
from detector.data.annotations.annotation import (
    Annotation,
    ImageFaces,
    image_faces,
    is_number,
    landmark_flags,
    number,
    read_text,
)

FACE = "face"  # the single class in COCO's format
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


def read_list(path: Path) -> Annotation:
    """Reads a list of images in px: `{"file_name", "annotations": [{"bbox": [x1, y1, x2, y2],
    "landmarks": [[x, y] × 5]}]}`.

    Unknown landmarks are missing, empty or null, an unknown point null or [-1, -1]. `attributes` of
    a face (plain data) and `width` and `height` of an image are optional.

    Raises:
        UserError: anything else, with the image and face.
    """
    data = _json(path)
    if not isinstance(data, list):
        raise UserError(f"{path}: must be a list of images with file_name and annotations")
    annotation = Annotation()
    names: set[str] = set()
    for number_, entry in enumerate(data, start=1):
        name = _name(path, f"image {number_}", entry, names)
        boxes, landmarks, attributes = [], [], []
        rows = entry.get("annotations") or []
        if not isinstance(rows, list):
            raise UserError(f"{path}: {name}: annotations must be a list of faces")
        for face_number, face in enumerate(rows, start=1):
            where = f"{path}: {name}: face {face_number}"
            x1, y1, x2, y2 = _box(where, face, "x1 y1 x2 y2")
            boxes.append((x1, y1, x2 - x1, y2 - y1))
            landmarks.append(_points(where, face.get("landmarks")))
            attributes.append(_attributes(where, face))
        annotation.images.append(
            image_faces(name, boxes, landmarks, attributes, _size(path, entry))
        )
    return annotation


def write_list(annotation: Annotation) -> str:
    """The text for `read_list`, one image a line; contains all information."""
    rows = []
    for image in annotation.images:
        entry: dict = {"file_name": image.name, **_size_keys(image)}
        entry["annotations"] = []
        for box, points, face in zip(image.boxes, image.landmarks, image.attributes):
            x, y, width, height = box
            row: dict = {"bbox": [number(v) for v in (x, y, x + width, y + height)]}
            if np.isfinite(points).any():
                row["landmarks"] = [
                    None if np.isnan(p).any() else [number(v) for v in p] for p in points
                ]
            entry["annotations"].append(row | ({"attributes": face} if face else {}))
        rows.append(json.dumps(entry))
    return "[\n" + ",\n".join(rows) + "\n]\n"


def read_coco(path: Path) -> Annotation:
    """Reads COCO's object format with the class `face`: `images`, `annotations` (`bbox` x y w h in
    px, optionally five `keypoints` x y v), `categories`.

    Annotations of other classes are left out, with a note; those with iscrowd 1 or ignore 1 are
    ignored faces. Without `annotations` (a test set) images count as without faces, with a note.
    Keypoints have v 0 if unknown, 1 if hidden.

    Raises:
        UserError: anything else, with the image or annotation id.
    """
    data = _json(path)
    content = {"annotations": [], **data} if isinstance(data, dict) else {}
    images, categories, annotations = (
        content.get(key) for key in ("images", "categories", "annotations")
    )
    if not (
        isinstance(images, list) and isinstance(categories, list) and isinstance(annotations, list)
    ):
        raise UserError(
            f"{path}: must be a mapping with the lists images, annotations and "
            "categories, as COCO has it"
        )
    named = {
        c["id"]: c.get("name")
        for c in categories
        if isinstance(c, dict) and isinstance(c.get("id"), (int, str))
    }
    if not any(str(name).lower() == FACE for name in named.values()):
        raise UserError(
            f"{path}: categories has no class {FACE}, only "
            f"{', '.join(map(str, named.values())) or 'none'}; rename the class of "
            f"faces to {FACE}"
        )
    annotation = Annotation()
    names: set[str] = set()
    rows: dict[int | str, tuple[dict, list, list, list]] = {}
    for at, entry in enumerate(images, start=1):
        name = _name(path, f"image {at}", entry, names)
        key = _id(path, f"image {at}", entry, "id")
        if key in rows:
            raise UserError(f"{path}: image {at}: duplicate id {key!r}; give each image its own")
        rows[key] = (entry | {"file_name": name}, [], [], [])
    others = 0
    for at, face in enumerate(annotations, start=1):
        where = f"{path}: annotation {face.get('id', at) if isinstance(face, dict) else at}"
        box = _box(where, face, "x y width height")
        key = _id(path, f"annotation {at}", face, "image_id")
        if key not in rows:
            raise UserError(
                f"{where}: image_id {key!r} is not among images; add the image or "
                "remove the annotation"
            )
        if str(named.get(_id(path, f"annotation {at}", face, "category_id"))).lower() != FACE:
            others += 1
            continue
        points, flags = _keypoints(where, face.get("keypoints"))
        extra = _attributes(where, face)
        extra |= {"landmark_flags": flags} if any(flags) else {}
        extra |= {"invalid": 1} if 1 in (face.get("iscrowd"), face.get("ignore")) else {}
        for values, value in zip(rows[key][1:], (box, points, extra)):
            values.append(value)
    if others:
        annotation.notes.append(
            f"{path}: annotations of other classes than {FACE}, or of none in "
            f"categories, left out: {others}"
        )
    if "annotations" not in data:
        annotation.notes.append(f"{path}: has no annotations: its images count as without faces")
    for entry, boxes, landmarks, attributes in rows.values():
        annotation.images.append(
            image_faces(entry["file_name"], boxes, landmarks, attributes, _size(path, entry))
        )
    return annotation


def write_coco(annotation: Annotation) -> str:
    """The text in COCO's format, with ids from 1 in the order of the file; contains all
    information."""
    images: list[dict] = []
    annotations: list[dict] = []
    for number_, image in enumerate(annotation.images, start=1):
        images.append({"id": number_, "file_name": image.name, **_size_keys(image)})
        for box, points, face in zip(image.boxes, image.landmarks, image.attributes):
            own = {key: value for key, value in face.items() if key != "landmark_flags"}
            known = np.isfinite(points).all(axis=1)
            flags = landmark_flags(face)
            row: dict = {
                "id": len(annotations) + 1,
                "image_id": number_,
                "category_id": 1,
                "bbox": [number(v) for v in box],
                "area": number(box[2] * box[3]),
                "iscrowd": int(face.get("invalid") == 1),
            }
            if known.any():
                row["num_keypoints"] = int(known.sum())
                row["keypoints"] = [
                    value
                    for point, is_known, flag in zip(points, known, flags)
                    for value in (
                        (number(point[0]), number(point[1]), 1 if flag else 2)
                        if is_known
                        else (0, 0, 0)
                    )
                ]
            annotations.append(row | ({"attributes": own} if own else {}))
    return (
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 1, "name": FACE, "keypoints": LANDMARKS, "skeleton": []}],
            }
        )
        + "\n"
    )


def _json(path: Path):
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); fix it there") from error


def _name(path: Path, where: str, entry, names: set[str]) -> str:
    """The file name of an image, cleaned, checked and added to `names`."""
    given = entry.get("file_name") if isinstance(entry, dict) else None
    name = clean_name(given) if isinstance(given, str) and not given.startswith("/") else ""
    if not all(part not in ("", "..") for part in name.split("/")):
        raise UserError(
            f"{path}: {where}: file_name {given!r} must be a path below the images' "
            "folder, such as event/file.jpg"
        )
    if name in names:
        raise UserError(f"{path}: {where}: {name} is listed twice; remove one")
    names.add(name)
    return name


def _id(path: Path, where: str, entry: dict, key: str) -> int | str:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise UserError(f"{path}: {where}: {key} {value!r} must be a number or text")
    return value


def _box(where: str, face, meaning: str) -> list[float]:
    box = face.get("bbox") if isinstance(face, dict) else None
    if not isinstance(box, list) or not _numbers(box, 4):
        raise UserError(f"{where}: bbox {box!r} must be four finite numbers, {meaning}")
    return box


def _numbers(value, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(map(is_number, value))


def _points(where: str, value) -> Sequence:
    """Landmarks [5, 2] of a face; NaN if unknown."""
    unknown = [math.nan, math.nan]
    if not value:
        return [unknown] * 5
    if not (
        isinstance(value, list)
        and len(value) == 5
        and all(point is None or _numbers(point, 2) for point in value)
    ):
        raise UserError(
            f"{where}: landmarks {value!r} must be five points [x, y] of finite "
            "numbers, null where unknown"
        )
    return [unknown if point is None or point == [-1, -1] else point for point in value]


def _keypoints(where: str, value) -> tuple[Sequence | np.ndarray, list[int]]:
    """Landmarks [5, 2], NaN if unknown, and whether each is hidden (0 or 1)."""
    if not value:
        return [[math.nan, math.nan]] * 5, [0] * 5
    if not _numbers(value, 15):
        raise UserError(
            f"{where}: keypoints must be 15 finite numbers, x y v of five landmarks, not {value!r}"
        )
    triples = np.array(value, np.float64).reshape(5, 3)
    triples[triples[:, 2] == 0, :2] = math.nan
    return triples[:, :2], [int(v == 1) for v in triples[:, 2]]


def _attributes(where: str, face: dict) -> dict:
    value = face.get("attributes") or {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: attributes {value!r} must be a mapping")
    return dict(value)


def _size(path: Path, entry: dict) -> tuple[int, int]:
    width, height = entry.get("width"), entry.get("height")
    if width is None and height is None:
        return 0, 0
    if not (_is_size(width) and _is_size(height)):
        raise UserError(
            f"{path}: {entry['file_name']}: width {width!r} and height {height!r} "
            "must be whole numbers from 1 to a billion, or both left out"
        )
    return width, height


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and is_number(value) and value > 0


def _size_keys(image: ImageFaces) -> dict:
    return {"width": image.size[0], "height": image.size[1]} if image.size[0] else {}
