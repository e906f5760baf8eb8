"""The val images and the faces that count on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError
from detector.config.recipe import DataChoice
from trials.stored import Origin

if TYPE_CHECKING:
    from detector.data.types import ImageSet
    from detector.metrics.wider import GroundTruth

GROUND_TRUTH = "ground_truth"
"""Folder of the official lists inside a data folder."""


def resolve_val_data(data: str | None, origin: Origin | None) -> tuple[str, str]:
    """The data to score on, and a line that names it.

    Args:
        data: what the user asked for.
        origin: of the model, whose training data is the default.
    """
    from detector.data.open import resolve_data

    if data is None and origin is not None:
        path = origin.data.path
        return path, f"data: {path} (what the model was trained on)"
    return resolve_data(data)


def open_val(path: str) -> ImageSet:
    """The val images of a data folder, or the built-in ones."""
    from detector.data.open import open_data

    data = open_data(DataChoice(path=path), parts=("val",))
    for warning in data.warnings:
        print(f"note: {warning}")
    return data.val


def official_lists(ground_truth: Path | None, path: str) -> Path | None:
    """Folder of the official lists: the given one, or that in the data folder; None without."""
    if ground_truth is not None:
        return ground_truth
    folder = Path(path) / GROUND_TRUTH
    return folder if path != "synthetic" and folder.is_dir() else None


def ground_truth_of(lists: Path | None, path: str, images: ImageSet) -> tuple[GroundTruth, str]:
    """The faces of the listed images, and a line that says which of them count.

    Raises:
        UserError: there are neither official lists nor boxes.
    """
    from detector.metrics.wider import height_ground_truth, official_ground_truth

    if lists is not None:
        truth = official_ground_truth(lists).only(label.name for label in images.labels)
        return truth, f"faces by the official lists in {lists}, those of these images"
    if path != "synthetic" and not any(len(label.boxes) for label in images.labels):
        raise UserError(
            f"{path}: its val annotation has no boxes and there is no folder "
            f"{GROUND_TRUTH}; add the official lists there, or give --ground-truth"
        )
    return height_ground_truth(images.labels), (
        "faces by their height (at least 51, 31, 11 px for easy, medium, hard), as there are no "
        "official lists"
    )
