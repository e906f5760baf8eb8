"""Files of the WIDER FACE evaluation: official ground truth (.mat), prediction files (.txt)."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from detector.base import files
from detector.base.errors import UserError
from detector.base.listing import find_names, list_files
from detector.metrics.levels import LEVELS

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_NO_BOXES = np.zeros((0, 5))
_NO_BOXES.setflags(write=False)  # shared by all images without detections


def image_key(name: str) -> str:
    """`<event>/<file name>` without the image's suffix, the key in lists and prediction files."""
    stem, dot, suffix = name.rpartition(".")
    return stem if (dot + suffix).lower() in _IMAGE_SUFFIXES else name


def read_official_lists(folder: Path) -> tuple[list[str], list[np.ndarray], dict[str, list]]:
    """Reads the official lists of the val images.

    Args:
        folder: holds wider_face_val.mat and wider_{easy,medium,hard}_val.mat.

    Returns:
        image keys in official order; float64 [n, 4] x, y, w, h of each image's faces; and for each
        level bool [n] masks of the faces that count in it (are not ignored).

    Raises:
        UserError: a file is missing or is not such a list.
    """
    from scipy.io import loadmat

    def read(file_name: str, *variables: str):
        path = Path(folder) / file_name
        try:
            data = files.read_bytes(path)
        except OSError as error:
            way_out = (
                "the ground truth folder must hold "
                "wider_face_val.mat and wider_{easy,medium,hard}_val.mat"
            )
            if isinstance(error, FileNotFoundError):
                raise UserError(f"{path}: no such file; {way_out}") from error
            raise files.cannot_read(path, error, way_out) from error
        try:
            content = loadmat(BytesIO(data), variable_names=variables)
            return [[cell[0] for cell in content[name]] for name in variables]
        except (ValueError, KeyError, TypeError, NotImplementedError, OSError) as error:
            raise UserError(
                f"{path}: not an official WIDER FACE list ({error}); download it again"
            ) from error

    events, names, faces = read("wider_face_val.mat", "event_list", "file_list", "face_bbx_list")
    keys = [f"{event[0]}/{file[0][0]}" for event, rows in zip(events, names) for file in rows]
    boxes = [np.asarray(cell[0], np.float64).reshape(-1, 4) for rows in faces for cell in rows]
    counted = {}
    for level in LEVELS:
        (lists,) = read(f"wider_{level}_val.mat", "gt_list")
        numbers = [np.asarray(cell[0], dtype=np.int64).ravel() for rows in lists for cell in rows]
        if len(numbers) != len(boxes):
            raise UserError(
                f"{folder}/wider_{level}_val.mat: lists {len(numbers)} images, "
                f"wider_face_val.mat {len(boxes)}; take both from one download"
            )
        counted[level] = [_mask(len(b), n) for b, n in zip(boxes, numbers)]
    return keys, boxes, counted


def _mask(size: int, numbers: np.ndarray) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[numbers - 1] = True  # the lists count from 1
    return mask


def read_predictions(
    folder: Path,
    names: Collection[str],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the prediction files `<folder>/<event>/<image>.txt` of the named images.

    A file has the image's name, the number of boxes, and then one `x y w h score` a line, in
    pixels; trailing blanks are allowed. The order is kept: the protocol depends on it.

    Args:
        names: `<event>/<image>`, with or without the image's suffix. Files are found as
            `find_names` says where there is none of exactly this name.

    Returns:
        name as given → float64 [n, 5], n ≥ 0; and the names without a file (no detections).

    Raises:
        UserError: no such folder, or an invalid line (file:line).
    """
    folder = Path(folder)
    if not files.is_folder(folder):
        raise UserError(f"{folder}: no such folder; give the one that holds <event>/<image>.txt")
    predictions, missing = {}, []
    other_names: dict[str, str] | None = None  # listed when a file is missing
    with warnings.catch_warnings():  # if np.fromstring stops early, lines are parsed one by one
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in names:
            path = f"{folder}/{image_key(name)}.txt"
            text = _read_if_there(path)
            if text is None:
                if other_names is None:
                    other_names = _other_names(folder, names)
                if name in other_names:
                    path = f"{folder}/{other_names[name]}"
                    text = _read_if_there(path)
            if text is None:
                missing.append(name)
                predictions[name] = _NO_BOXES
            else:
                predictions[name] = parse_predictions(text, path)
    return predictions, missing


def _read_if_there(path: str) -> bytes | None:
    try:
        return files.read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.cannot_read(path, error, "write this file again") from error


def _other_names(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Image → its prediction file, if only the name on disk differs (see `find_names`)."""
    listing = list_files(folder)
    for path, error in listing.closed.items():
        raise files.cannot_read(folder / path, error, "give a folder that can be listed")
    wanted = {f"{image_key(name)}.txt": name for name in names}
    return {wanted[file]: path for file, path in find_names(wanted, listing.files).items()}


def parse_predictions(text: bytes, path: str) -> np.ndarray:
    """float64 [n, 5] from the content of one prediction file.

    Raises:
        UserError: an invalid line, named as path:line.
    """
    header_end = text.find(b"\n", text.find(b"\n") + 1)
    header = (text if header_end < 0 else text[:header_end]).split(b"\n")
    if len(header) < 2 or not header[1].strip().isdigit():
        raise UserError(
            f"{path}:{min(len(header), 2)}: line 1 must be the image's name and line 2 "
            "the number of boxes"
        )
    count = int(header[1])
    body = (b"" if header_end < 0 else text[header_end + 1 :].rstrip()) + b"\n"
    rows = _parse_even_rows(body)
    if rows is None:
        rows = _parse_lines(body, path)
    if len(rows) != count:
        raise UserError(
            f"{path}:2: says {count} boxes, but {len(rows)} follow; "
            "the file may be truncated: write it again"
        )
    return rows


def _parse_even_rows(body: bytes) -> np.ndarray | None:
    """All rows at once; None if a line does not have exactly five finite numbers."""
    characters = np.frombuffer(body, dtype=np.uint8)
    blank = characters <= 32
    if blank[0]:
        return _NO_BOXES if len(body.strip()) == 0 else None
    ends = np.flatnonzero(characters == 10)
    starts = np.flatnonzero(blank[:-1] & ~blank[1:])  # right before every number except the first
    if starts.size != 5 * ends.size - 1:
        return None
    if (starts[3::5] >= ends).any() or (starts[4::5] < ends[:-1]).any():
        return None
    try:
        numbers = np.fromstring(body, dtype=np.float64, sep=" ")
    except ValueError:
        return None
    if numbers.size != 5 * ends.size or not np.isfinite(numbers).all():
        return None
    return numbers.reshape(-1, 5)


def _parse_lines(body: bytes, path: str) -> np.ndarray:
    """Line by line: skips empty lines, and names an invalid one."""
    rows = []
    for line, content in enumerate(body.split(b"\n"), start=3):
        if not content.strip():
            continue
        try:
            row = [float(number) for number in content.split()]
        except ValueError:
            row = []
        if len(row) != 5 or not np.isfinite(row).all():
            shown = content.strip().decode("utf-8", "replace")
            raise UserError(
                f"{path}:{line}: {shown[:60]!r} is not 'x y w h score', five numbers; "
                "fix or remove the line"
            )
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def write_predictions(folder: Path, predictions: Mapping[str, np.ndarray]) -> None:
    """Writes `<folder>/<event>/<image>.txt` for each image; the inverse of `read_predictions`.

    Args:
        predictions: `<event>/<image>` → float [n, 5] x, y, w, h, score. Whole pixels are written
            as integers, as in the usual writer.
    """
    created = set()
    for name, rows in predictions.items():
        path = Path(folder) / f"{image_key(name)}.txt"
        if path.parent not in created:
            path.parent.mkdir(parents=True, exist_ok=True)
            created.add(path.parent)
        lines = [PurePosixPath(image_key(name)).name, str(len(rows))]
        for row in np.asarray(rows, dtype=np.float64).tolist():
            box = " ".join(str(int(v)) if v == int(v) else repr(v) for v in row[:4])
            lines.append(f"{box} {row[4]!r}")
        with files.atomic_path(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
