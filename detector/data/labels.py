"""Parsers of the two text formats that WIDER FACE's faces come in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detector.data.types import ImageLabel
from detector.errors import UserError


@dataclass(eq=False)
class Annotation:
    """What an annotation file says."""

    labels: list[ImageLabel] = field(default_factory=list)
    """Sizes unknown; boxes have area and reach into the image's upper left."""
    dropped: int = 0
    """Boxes of no width or height, or wholly left of or above the image."""


def read_wider(path: Path) -> Annotation:
    """WIDER's own format: the image's path, the number of faces, then a row for each.

    A row is `x y w h blur expression illumination invalid occlusion pose` in px; faces flagged
    invalid are ignored. An image without faces has the number 0 and a row of zeros (which some
    copies lack).

    Raises:
        UserError: a bad line, named as file:line.
    """
    lines = _lines(path)
    annotation, names = Annotation(), set()
    at = 0
    while at < len(lines):
        name = lines[at]
        if not name:
            at += 1
            continue
        _check_name(path, at, name, names)
        if at + 1 >= len(lines) or not lines[at + 1].isdecimal():
            got = repr(lines[at + 1]) if at + 1 < len(lines) else "the end of the file"
            raise _bad(path, at + 1, f"{got} where the number of faces of {name} belongs")
        count = int(lines[at + 1])
        at += 2
        rows = []
        for i in range(at, at + count):
            numbers = _numbers(lines[i]) if i < len(lines) else None
            if numbers is None or len(numbers) not in (4, 10):
                got = repr(lines[i]) if i < len(lines) else "the end of the file"
                raise _bad(path, i, f"{got} where face {i - at + 1} of {count} of {name} belongs; "
                           "a face is x y w h and six flags")
            rows.append(numbers)
        at += count
        if at < len(lines) and (extra := _numbers(lines[at])):
            if count or any(extra):
                raise _bad(path, at, f"one face more than the {count} announced for {name}; "
                           "correct the number or the rows")
            at += 1
        boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
        ignore = np.array([len(row) > 7 and row[7] == 1 for row in rows], bool)
        _add(annotation, name, boxes, _unknown(len(rows)), ignore)
    return annotation


def read_retinaface(path: Path) -> Annotation:
    """RetinaFace's format: `# path` of the image, then a row for each face.

    A row is `x y w h` in px, and in the training file five landmarks as `x y flag` (-1 where
    unknown) and a blur score after it.

    Raises:
        UserError: a bad line, named as file:line.
    """
    annotation, names = Annotation(), set()
    name, rows = None, []

    def finish():
        if name is None:
            return
        boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
        landmarks = _unknown(len(rows))
        for points, row in zip(landmarks, rows):
            if len(row) > 4:
                points[:] = np.array(row[4:19], np.float32).reshape(5, 3)[:, :2]
                points[(points < 0).any(axis=1)] = np.nan
        _add(annotation, name, boxes, landmarks, np.zeros(len(rows), bool))

    for i, line in enumerate(_lines(path)):
        if line.startswith("#"):
            finish()
            name, rows = line[1:].strip().lstrip("/"), []
            _check_name(path, i, name, names)
        elif line:
            numbers = _numbers(line)
            if name is None or numbers is None or len(numbers) not in (4, 19, 20):
                raise _bad(path, i, f"{line!r} is neither '# path' nor a face: x y w h, or these "
                           "with five landmarks x y flag and a blur score")
            rows.append(numbers)
    finish()
    return annotation


def read_names(path: Path) -> Annotation:
    """A bare list of image paths (RetinaFace's val/wider_val.txt): images without known faces."""
    annotation, names = Annotation(), set()
    for i, line in enumerate(_lines(path)):
        if line:
            name = line.lstrip("/")
            _check_name(path, i, name, names)
            _add(annotation, name, np.empty((0, 4), np.float32), _unknown(0), np.zeros(0, bool))
    return annotation


def _add(annotation: Annotation, name: str, boxes: np.ndarray, landmarks: np.ndarray,
         ignore: np.ndarray) -> None:
    """Appends an image; `boxes` are x y w h."""
    kept = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] + boxes[:, 2:] > 0).all(axis=1)
    boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).clip(0)
    annotation.labels.append(ImageLabel(name, (0, 0), boxes[kept], landmarks[kept], ignore[kept]))
    annotation.dropped += int((~kept).sum())


def _unknown(count: int) -> np.ndarray:
    return np.full((count, 5, 2), np.nan, np.float32)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); "
                        "give the annotation file as published") from error


def _numbers(line: str) -> list[float] | None:
    """The finite numbers of a line; none where it holds anything else."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return None
    return numbers if numbers and all(abs(n) < 1e9 for n in numbers) else None


def _check_name(path: Path, line: int, name: str, names: set[str]) -> None:
    parts = name.split("/")
    if len(parts) < 2 or not all(parts) or ".." in parts:
        raise _bad(path, line, f"{name!r} where an image's path belongs, as event/file.jpg")
    if name in names:
        raise _bad(path, line, f"{name} is listed twice; leave one")
    names.add(name)


def _bad(path: Path, line: int, what: str) -> UserError:
    return UserError(f"{path}:{line + 1}: {what}")
