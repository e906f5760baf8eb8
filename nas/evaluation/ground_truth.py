"""The val images, and the faces that count."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError
from detector.base.files import is_folder
from detector.config.recipe import DataChoice
from trials.stored import Origin

if TYPE_CHECKING:
    from detector.data.types import ImageSet
    from detector.metrics.wider import GroundTruth

GROUND_TRUTH = "ground_truth"
"""Name of the folder of official lists in a data folder."""
GROUND_TRUTH_FOLDERS = (GROUND_TRUTH, "val/gt")  # the second as SCRFD has it


def resolve_val_data(data: str | None, origin: Origin | None) -> tuple[str, str]:
    """The data to score on (a folder, or synthetic), and a line about it for the user.

    Args:
        data: the user's choice, if any.
        origin: of the model, whose training data is the default.
    """
    from detector.data.open import resolve_data

    if data is None and origin is not None:
        path = origin.data.path
        return path, f"data: {path} (what the model was trained on)"
    return resolve_data(data)


def open_val(path: str) -> ImageSet:
    """The val images of a data folder, or of the built-in data."""
    from detector.data.open import open_data

    data = open_data(DataChoice(path=path), parts=("val",))
    for warning in data.warnings:
        print(f"note: {warning}")
    return data.val


def find_official_lists(ground_truth: Path | None, path: str) -> Path | None:
    """Folder of the official lists: the given one, or the one in the data folder; None if there is
    none."""
    if ground_truth is not None:
        return ground_truth
    folders = [] if path == "synthetic" else [Path(path) / name for name in GROUND_TRUTH_FOLDERS]
    return next(filter(is_folder, folders), None)


def print_uncounted(truth: GroundTruth, path: str) -> None:
    """Print a note if no face counts at some level.

    Args:
        path: the data folder, or synthetic.

    Raises:
        UserError: none counts at any level.
    """
    from detector.metrics.face_counts import check_counted

    for note in check_counted(truth, f"{path}: its {len(truth):,} val images"):
        print(f"note: {note}")


def load_ground_truth(lists: Path | None, path: str, images: ImageSet) -> tuple[GroundTruth, str]:
    """The faces in the images, and how it is decided which of them count, in words.

    Args:
        lists: folder of the official lists; without it a face's height decides.
        path: the data folder, or synthetic.

    Raises:
        UserError: there are neither official lists nor boxes.
    """
    from detector.metrics.wider import height_ground_truth, official_ground_truth

    if lists is not None:
        truth = official_ground_truth(lists).subset(label.name for label in images.labels)
        return truth, f"faces by the official lists in {lists}, those of these images"
    if path != "synthetic" and not any(len(label.boxes) for label in images.labels):
        raise UserError(
            f"{path}: its val annotation has no boxes, and there is no folder "
            f"{GROUND_TRUTH}; add the official lists there, or give --ground-truth"
        )
    return height_ground_truth(images.labels), (
        "faces by their height (at least 51, 31, 11 px for easy, medium, hard), as there are no "
        "official lists"
    )
