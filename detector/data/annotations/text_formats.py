"""The text formats of WIDER FACE's labels, its own, RetinaFace's and SCRFD's: read and written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from detector.base.errors import UserError
from detector.base.listing import clean_name
from detector.data.annotations.annotation import (
    MAX_COORDINATE,
    Annotation,
    attribute,
    image_faces,
    landmark_flags,
    number,
    read_text,
)

_COUNT = re.compile(r"\d{1,9}")
WIDER_FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")


def read_wider(path: Path) -> Annotation:
    """Reads WIDER's own format: the image's path, the number of faces, then a row for each face.

    A row is `x y w h blur expression illumination invalid occlusion pose` in px; faces flagged
    invalid are ignored. An image without faces has the number 0 and a row of zeros (missing in
    some copies).

    Raises:
        UserError: an invalid line, named as file:line.
    """
    lines = _lines(path)
    annotation = Annotation()
    names: set[str] = set()
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        name = _name(path, at, lines[at], names)
        if at + 1 >= len(lines) or not _COUNT.fullmatch(lines[at + 1]):
            got = repr(lines[at + 1]) if at + 1 < len(lines) else "the end of the file"
            raise _bad_line(path, at + 1, f"{got} instead of the number of faces of {name}")
        count = int(lines[at + 1])
        at += 2
        rows = []
        for i in range(at, at + count):
            numbers = _numbers(lines[i]) if i < len(lines) else None
            if numbers is None or len(numbers) not in (4, 10):
                got = repr(lines[i]) if i < len(lines) else "the end of the file"
                raise _bad_line(
                    path,
                    i,
                    f"{got} instead of face {i - at + 1} of {count} of {name}; "
                    "a face is x y w h and six flags",
                )
            rows.append(numbers)
        at += count
        if at < len(lines) and (extra := _numbers(lines[at])):
            if count or any(extra):
                raise _bad_line(
                    path,
                    at,
                    f"more faces than the {count} announced for {name}; "
                    "correct the number or the rows",
                )
            at += 1
        flags = [dict(zip(WIDER_FLAGS, map(number, row[4:]))) for row in rows]
        annotation.images.append(image_faces(name, [row[:4] for row in rows], None, flags))
    return annotation


def read_retinaface(path: Path) -> Annotation:
    """Reads RetinaFace's format: `# path` of the image, then a row for each face.

    A row is `x y w h` in px, in the training file followed by five landmarks as `x y flag` (-1 if
    unknown) and a blur score.

    Raises:
        UserError: an invalid line, named as file:line.
    """
    annotation = Annotation()
    names: set[str] = set()
    name: str | None = None
    rows: list[list[float]] = []

    def finish() -> None:
        if name is not None:
            points, attributes = zip(*map(_points, rows)) if rows else ((), ())
            annotation.images.append(
                image_faces(name, [row[:4] for row in rows], points, attributes)
            )

    for i, line in enumerate(_lines(path)):
        if line.startswith("#"):
            finish()
            name, rows = _name(path, i, line[1:].strip().lstrip("/"), names), []
        elif line:
            numbers = _numbers(line)
            if name is None or numbers is None or len(numbers) not in (4, 19, 20):
                raise _bad_line(
                    path,
                    i,
                    f"{line!r} is neither '# path' nor a face: x y w h, or these "
                    "with five landmarks x y flag and a blur score",
                )
            rows.append(numbers)
    finish()
    return annotation


def is_scrfd_header(line: str) -> bool:
    """Whether a line has SCRFD's `# path width height`."""
    return _SCRFD_HEADER.fullmatch(line.strip()) is not None


_SCRFD_HEADER = re.compile(r"#\s*(\S.*?)\s+(\d{1,9})\s+(\d{1,9})")


def read_scrfd(path: Path) -> Annotation:
    """Reads SCRFD's and InsightFace's labelv2.txt: `# path width height` of the image, then a row
    for each face.

    A row is `x1 y1 x2 y2` in px, followed by nothing, by 1 if the face is ignored (otherwise 0), or
    by five landmarks as `x y flag`, where a flag of -1 means unknown
    (github.com/deepinsight/insightface, detection/scrfd/mmdet/datasets/retinaface.py).

    Raises:
        UserError: an invalid line, named as file:line.
    """
    annotation = Annotation()
    names: set[str] = set()
    name: str | None = None
    size = (0, 0)
    rows: list[list[float]] = []

    def finish() -> None:
        if name is not None:
            points, attributes = zip(*map(_scrfd_points, rows)) if rows else ((), ())
            boxes = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (row[:4] for row in rows)]
            annotation.images.append(image_faces(name, boxes, points, attributes, size))

    for i, line in enumerate(_lines(path)):
        if line.startswith("#"):
            finish()
            header = _SCRFD_HEADER.fullmatch(line)
            if header is None or 0 in (int(header[2]), int(header[3])):
                raise _bad_line(path, i, f"{line!r} instead of '# path width height'")
            name, rows = _name(path, i, header[1].lstrip("/"), names, folders=0), []
            size = int(header[2]), int(header[3])
        elif line:
            numbers = _numbers(line)
            if (
                name is None
                or numbers is None
                or len(numbers) not in (4, 5, 19)
                or (len(numbers) == 5 and numbers[4] not in (0, 1))
            ):
                raise _bad_line(
                    path,
                    i,
                    f"{line!r} is neither '# path width height' nor a face: x1 y1 x2 y2, or these "
                    "with 1 if it is ignored, or with five landmarks x y flag",
                )
            rows.append(numbers)
    finish()
    return annotation


def read_names(path: Path) -> Annotation:
    """Reads a list of image paths (RetinaFace's val/wider_val.txt): images without known faces."""
    annotation = Annotation()
    names: set[str] = set()
    for i, line in enumerate(_lines(path)):
        if line:
            name = _name(path, i, line.lstrip("/"), names)
            annotation.images.append(image_faces(name, []))
    return annotation


def write_wider(annotation: Annotation) -> str:
    """The text in WIDER's format, which has no landmarks, blur scores and sizes of images."""
    lines = []
    for image in annotation.images:
        lines += [image.name, str(len(image.boxes))]
        lines += [
            _row([*box, *(attribute(face, flag) for flag in WIDER_FLAGS)])
            for box, face in zip(image.boxes, image.attributes)
        ]
        if not len(image.boxes):
            lines.append(_row([0] * 10))
    return "\n".join(lines) + "\n"


def write_retinaface(annotation: Annotation) -> str:
    """The text in RetinaFace's format, which has no WIDER flags, sizes of images, and landmarks
    left of or above the image."""
    has_landmarks = any(
        np.isfinite(image.landmarks).any() or any("blur_score" in face for face in image.attributes)
        for image in annotation.images
    )
    lines = []
    for image in annotation.images:
        lines.append(f"# {image.name}")
        for box, points, face in zip(image.boxes, image.landmarks, image.attributes):
            row = [*box]
            if has_landmarks:
                for (x, y), flag in zip(points, landmark_flags(face)):
                    row += [x, y, flag] if min(x, y) >= 0 else [-1, -1, -1]  # unknown ones are NaN
                if "blur_score" in face:
                    row.append(attribute(face, "blur_score"))
            lines.append(_row(row))
    return "\n".join(lines) + "\n"


def write_scrfd(annotation: Annotation) -> str:
    """The text in SCRFD's format, which has no WIDER flags except invalid, no blur scores, and no
    landmarks of ignored faces.

    Raises:
        UserError: the size of an image is unknown.
    """
    lines = []
    for image in annotation.images:
        if not all(image.size):
            raise UserError(
                f"{image.name}: SCRFD's labelv2.txt has the width and height of each image, and "
                "this one's are unknown; give the folder of the images with --images"
            )
        lines.append(f"# {image.name} {image.size[0]} {image.size[1]}")
        for (x, y, w, h), points, face, ignored in zip(
            image.boxes, image.landmarks, image.attributes, image.ignore
        ):
            row = [x, y, x + w, y + h]
            if ignored:
                row.append(1)
            else:  # SCRFD's training wants all 15 numbers
                for point, flag in zip(points, landmark_flags(face)):
                    row += [*point, flag] if np.isfinite(point).all() else [-1, -1, -1]
            lines.append(_row(row))
    return "\n".join(lines) + "\n"


def _row(numbers) -> str:
    return " ".join(f"{number(n)}" for n in numbers)


def _points(row: list[float]) -> tuple[np.ndarray, dict]:
    """Landmarks [5, 2] and attributes of a face's row."""
    if len(row) == 4:
        return np.full((5, 2), np.nan), {}
    triples = np.array(row[4:19]).reshape(5, 3)
    points, flags = triples[:, :2].copy(), triples[:, 2]
    points[(points < 0).any(axis=1)] = np.nan
    attributes: dict[str, object] = {"blur_score": number(row[19])} if len(row) == 20 else {}
    if (flags > 0).any():
        attributes["landmark_flags"] = [number(max(flag, 0)) for flag in flags]
    return points, attributes


def _scrfd_points(row: list[float]) -> tuple[np.ndarray, dict]:
    """Landmarks [5, 2] and attributes of a face's row in SCRFD's format."""
    if len(row) < 19:
        return np.full((5, 2), np.nan), {"invalid": 1} if row[4:] == [1] else {}
    triples = np.array(row[4:]).reshape(5, 3)
    points, flags = triples[:, :2].copy(), triples[:, 2]
    points[flags < 0] = np.nan
    hidden = [number(max(flag, 0)) for flag in flags]
    return points, {"landmark_flags": hidden} if any(hidden) else {}


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines()]


def _numbers(line: str) -> list[float] | None:
    """The finite numbers of a line; None if it has anything else."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return None
    return numbers if numbers and all(abs(n) < MAX_COORDINATE for n in numbers) else None


def _name(path: Path, line: int, given: str, names: set[str], folders: int = 1) -> str:
    """The name of an image, cleaned, checked and added to `names`.

    Args:
        folders: that it has at least.
    """
    name = clean_name(given)
    parts = name.split("/")
    if len(parts) <= folders or not all(parts) or ".." in parts or given.startswith("/"):
        raise _bad_line(path, line, f"{given!r} instead of an image's path, such as event/file.jpg")
    if name in names:
        raise _bad_line(path, line, f"{name} is listed twice; remove one")
    names.add(name)
    return name


def _bad_line(path: Path, line: int, what: str) -> UserError:
    return UserError(f"{path}:{line + 1}: {what}")
