"""The images of a study, WIDER FACE or synthetic, split into training, hold-out and val."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from detector.base.errors import UserError
from detector.base.files import is_folder
from detector.config.recipe import DataChoice
from detector.data.splits import Subset, fingerprint, stratified
from detector.data.synthetic.scenes import SyntheticImages
from detector.data.types import WIDER, WIDER_IMAGE, ImageSet
from detector.data.wider import layouts, open_part

DEFAULT_FOLDER = Path("data/widerface")
TRAIN_IMAGES, VAL_IMAGES = 320, 120  # of the built-in set


@dataclass(frozen=True, eq=False)
class Data:
    """The images of one study."""

    name: str
    """Shown to the user."""
    root: Path | None
    """Folder of the data set; None if it is synthetic."""
    train: ImageSet
    """The images that trials train on: neither hold-out nor val."""
    holdout: ImageSet
    """Training images that are excluded from `train`."""
    selection: ImageSet
    """The images that trials are compared on: the hold-out, or val if the user chooses so."""
    all_train: ImageSet
    """`train` and `holdout` together."""
    val: ImageSet
    """The official validation images; empty if the folder has none."""
    warnings: list[str] = field(default_factory=list)
    """What the user should know about the data, a line each."""

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits, equal for equal images, labels and split."""
        return fingerprint(self.train.fingerprint, self.holdout.fingerprint, self.val.fingerprint)

    @property
    def select_on(self) -> str:
        """Which images `selection` contains, as in `DataChoice.select_on`."""
        return "val" if self.selection is self.val else "holdout"

    @cached_property
    def has_landmarks(self) -> bool:
        """Whether any training face has a known landmark."""
        return any(np.isfinite(label.landmarks).any() for label in self.all_train.labels)


def resolve_data(path: str | None) -> tuple[str, str]:
    """The data to use for the user's `path` or the default, and a line that reports it."""
    if path is not None:
        return path, f"data: {path}" if path != "synthetic" else "data: built-in drawn scenes"
    if is_folder(DEFAULT_FOLDER):
        return str(DEFAULT_FOLDER), f"data: {DEFAULT_FOLDER} (found here; --data chooses another)"
    return "synthetic", (
        f"data: built-in drawn scenes (no {DEFAULT_FOLDER} here; --data PATH takes WIDER FACE)"
    )


def open_data(choice: DataChoice, parts: tuple[str, ...] = ("train", "val")) -> Data:
    """The images that `choice` names.

    Args:
        parts: what to open; the first part must exist, the other may be missing, which is reported
            as a warning. Parts not named are empty.

    Raises:
        UserError: a folder that is missing, empty or of an unknown layout; an invalid annotation;
            too few images for a hold-out.
    """
    if choice.path == "synthetic":
        return synthetic_data(choice)
    root = Path(choice.path)
    if not is_folder(root):
        raise UserError(
            f"{root}: no such folder; give WIDER FACE's folder, or synthetic for the "
            "built-in images"
        )
    opened: dict[str, ImageSet] = {}
    warnings: list[str] = []
    for part in parts:
        images = open_part(root, part)
        if images is not None:
            opened[part] = images[0]
            warnings += images[1]
        elif part == parts[0]:
            raise UserError(f"{root}: no {part} images; a data folder has {layouts(part)}")
        else:
            warnings.append(f"{root}: no {part} images; continuing without them")
    empty = Subset(opened[parts[0]], [], "none")
    train, val = opened.get("train", empty), opened.get("val", empty)
    is_wider = all(WIDER_IMAGE.fullmatch(label.name) for label in (*train.labels, *val.labels))
    name = WIDER if is_wider else root.resolve().name
    return _split(choice, name, root, train, val, warnings)


def synthetic_data(choice: DataChoice, train: int = TRAIN_IMAGES, val: int = VAL_IMAGES) -> Data:
    """The built-in synthetic scenes: `train` images (hold-out included) and `val` images.

    The images are always the same; `choice` determines fraction and hold-out.
    """
    return _split(
        choice, "synthetic", None, SyntheticImages("train", train), SyntheticImages("val", val), []
    )


def _split(
    choice: DataChoice,
    name: str,
    root: Path | None,
    train: ImageSet,
    val: ImageSet,
    warnings: list[str],
) -> Data:
    def sample(images: ImageSet, share: float, purpose: str) -> tuple[list[int], list[int]]:
        flags = stratified([label.name for label in images.labels], share, choice.seed, purpose)
        return (
            [i for i, flag in enumerate(flags) if flag],
            [i for i, flag in enumerate(flags) if not flag],
        )

    if choice.fraction < 1:
        train = Subset(train, sample(train, choice.fraction, "fraction")[0], train.name)
    held_out, remaining = sample(train, choice.holdout, "holdout")
    if len(train) and not (held_out and remaining):
        raise UserError(
            f"{choice.path}: {len(train)} training images are too few to hold out "
            f"{choice.holdout:g} of them; raise fraction or add images"
        )
    holdout = Subset(train, held_out, f"{name} hold-out")
    return Data(
        name=name,
        root=root,
        train=Subset(train, remaining, train.name),
        holdout=holdout,
        selection=val if choice.select_on == "val" else holdout,
        all_train=train,
        val=val,
        warnings=warnings,
    )
