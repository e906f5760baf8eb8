"""What a folder without a fitting prediction file seems to be; boxes of another kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from detector.base.errors import UserError
from trials.record import MIN_AP, mean_ap

if TYPE_CHECKING:
    from detector.metrics.wider import GroundTruth

UNIT = 1.5
"""Boxes without a larger coordinate are in units of the image's size, not in px."""
CORNERS_SHARE = 0.95
"""Share of boxes whose last two numbers exceed the first two, from which on they may be corners."""


def no_file_fits(folder: Path, names: Iterable[str]) -> UserError:
    """The error for a folder without a file for any image: what it seems to be, and what is
    expected.

    Args:
        names: `<event>/<image>`, with or without the image's suffix.
    """
    from detector.base.listing import list_files
    from detector.data.types import image_key

    keys = [image_key(name) for name in names]
    files = list(list_files(folder).files)
    return UserError(
        f"{folder}: has no prediction file for any of the {len(keys):,} images; "
        f"{_what_it_seems(folder, files, keys)}; expected is a file <event>/<image>.txt for each "
        f"image, such as {keys[0]}.txt"
    )


def _what_it_seems(folder: Path, files: list[str], keys: list[str]) -> str:
    """Such as "the files are in its subfolder x"."""
    if not files:
        return "the folder is empty"
    kinds = Counter(filter(None, map(_kind_of(folder, keys), files)))
    if not kinds:
        return f"its {len(files):,} files have other names, such as {min(files)}"
    (where, suffix), count = kinds.most_common(1)[0]
    parts = [where] if where else []
    if suffix != ".txt":
        parts.append(f"their names end in {suffix} instead of .txt")
    return f"{count:,} files are for these images, but {' and '.join(parts)}"


def _kind_of(folder: Path, keys: list[str]):
    """Function: a file → where it lies instead, "" if rightly, and its suffix; None if its name is
    not that of an image."""
    by_name = defaultdict(set)
    for key in keys:
        by_name[PurePosixPath(key).name].add(key)
    own_name = folder.resolve().name

    def kind(file: str) -> tuple[str, str] | None:
        path = PurePosixPath(file)
        for suffix in (path.suffix, "".join(path.suffixes[-2:])):
            name = file.removesuffix(suffix)
            candidates = by_name.get(PurePosixPath(name).name)
            if not candidates:
                continue
            if name in candidates:
                return "", suffix
            for key in candidates:
                if name.endswith(f"/{key}"):
                    inner = folder / name.removesuffix(f"/{key}")
                    return f"they are in its subfolder: give {inner}", suffix
            if f"{own_name}/{name}" in candidates:
                return f"this is the folder of one event: give {folder.resolve().parent}", suffix
            if "/" not in name:
                return "they lie side by side, without folders of events", suffix
            return "they lie in folders with other names than the events", suffix
        return None

    return kind


def box_notes(
    predictions: Mapping[str, np.ndarray], truth: GroundTruth, ap: Mapping[str, float]
) -> list[str]:
    """Notes if boxes seem to be given in another way than as x, y, w, h in px.

    Args:
        ap: of the predictions as they are.
    """
    from detector.metrics.wider import wider_ap

    filled = [rows for rows in predictions.values() if len(rows)]
    if not filled:
        return ["none of the prediction files has a box"]
    boxes = np.concatenate(filled)[:, :4]
    if boxes.max() <= UNIT:
        return [
            f"no coordinate of any box is above {boxes.max():g}: they seem to be fractions of the "
            "image's size; expected are px of the image"
        ]
    if np.mean((boxes[:, 2:] > boxes[:, :2]).all(axis=1)) >= CORNERS_SHARE:
        read_as_corners = {
            name: np.column_stack([rows[:, :2], rows[:, 2:4] - rows[:, :2], rows[:, 4:]])
            for name, rows in predictions.items()
        }
        mean = mean_ap(wider_ap(read_as_corners, truth))
        if mean > mean_ap(ap) or mean_ap(ap) < MIN_AP:
            return [
                "the boxes seem to be x1 y1 x2 y2, since nearly all have a third and a fourth "
                f"number above the first and the second (read so, their mean AP is {mean:.4f}); "
                "expected are x y w h: the top left corner, width and height"
            ]
    return []
