"""Files of the WIDER FACE evaluation: official ground truth (.mat), prediction files (.txt)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow
from pyarrow import csv

from detector.base import files
from detector.base.errors import UserError
from detector.base.listing import find_names, list_files
from detector.data.types import image_key
from detector.metrics.levels import LEVELS

_BLOCK = 1 << 24  # bytes that are parsed together
_NO_BOXES = np.zeros((0, 5))
_NO_BOXES.setflags(write=False)  # shared by all images without detections


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
    texts: dict[str, tuple[bytes, str]] = {}  # and the file's path
    other_names: dict[str, str] | None = None  # listed when a file is missing
    for name in names:
        path = f"{folder}/{image_key(name)}.txt"
        text = _read_if_there(path)
        if text is None:
            if other_names is None:
                other_names = _other_names(folder, names)
            if name in other_names:
                path = f"{folder}/{other_names[name]}"
                text = _read_if_there(path)
        if text is not None:
            texts[name] = (text, path)
    found = dict(zip(texts, parse_predictions(list(texts.values()))))
    missing = [name for name in names if name not in found]
    return {name: found.get(name, _NO_BOXES) for name in names}, missing


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


def parse_predictions(texts: Sequence[tuple[bytes, str]]) -> list[np.ndarray]:
    """float64 [n, 5] of each prediction file, given its content and its path.

    Raises:
        UserError: an invalid line, named as path:line.
    """
    parts = [_count_and_body(text, path) for text, path in texts]
    counts = [count for count, _ in parts]
    if all(body.count(b"\n") == count for count, body in parts):
        rows = _parse_even_lines(b"".join(body for _, body in parts))
        if rows is not None and len(rows) == sum(counts):
            return np.split(rows, np.cumsum(counts)[:-1]) if counts else []
    return [_parse_lines(count, body, path) for (count, body), (_, path) in zip(parts, texts)]


def _count_and_body(text: bytes, path: str) -> tuple[int, bytes]:
    """The number in the header, and the lines after it."""
    header_end = text.find(b"\n", text.find(b"\n") + 1)
    header = (text if header_end < 0 else text[:header_end]).split(b"\n")
    if len(header) < 2 or not header[1].strip().isdigit():
        raise UserError(
            f"{path}:{min(len(header), 2)}: line 1 must be the image's name and line 2 "
            "the number of boxes"
        )
    body = b"" if header_end < 0 else text[header_end + 1 :].rstrip()
    return int(header[1]), body + b"\n" if body else b""


def _parse_even_lines(body: bytes) -> np.ndarray | None:
    """All lines at once; None unless each has exactly five finite numbers with one space between
    them. A space at a line's end, which the usual writer leaves, is allowed."""
    if not body:
        return _NO_BOXES
    columns = ["x", "y", "w", "h", "score"]
    try:
        table = csv.read_csv(
            pyarrow.BufferReader(body.replace(b" \n", b"\n")),
            csv.ReadOptions(column_names=columns, block_size=_BLOCK),
            csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pyarrow.float64()), null_values=[]
            ),
        )
    except pyarrow.ArrowInvalid:
        return None
    rows = np.stack([table[column].to_numpy() for column in columns], axis=1)
    return rows if np.isfinite(rows).all() else None


def _parse_lines(count: int, body: bytes, path: str) -> np.ndarray:
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
    if len(rows) != count:
        raise UserError(
            f"{path}:2: says {count} boxes, but {len(rows)} follow; "
            "the file may be truncated: write it again"
        )
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
