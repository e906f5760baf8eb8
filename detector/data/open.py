"""The images of a study: WIDER FACE or the built-in drawn set, split into parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from detector.base.errors import UserError
from detector.config.recipe import DataChoice
from detector.data.splits import Subset, fingerprint, stratified
from detector.data.synthetic.scenes import DrawnImages
from detector.data.types import ImageSet
from detector.data.wider import layouts, open_part

DEFAULT_FOLDER = Path("data/widerface")
TRAIN_IMAGES, VAL_IMAGES = 320, 120  # of the built-in set


@dataclass(frozen=True, eq=False)
class Data:
    """The images of one study."""

    name: str
    """Shown to the user."""
    root: Path | None
    """Folder of the data set; none where it is drawn."""
    train: ImageSet
    """What trials learn from: neither hold-out nor val."""
    holdout: ImageSet
    """A part of the training images that is kept out of `train`."""
    selection: ImageSet
    """What trials are compared on: the hold-out, or val where the user says so."""
    all_train: ImageSet
    """Train and hold-out together."""
    val: ImageSet
    """The official validation images; empty where the folder has none."""
    warnings: list[str] = field(default_factory=list)
    """Facts about the data that the user should know, a line each."""

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits; the same images, faces and split have the same."""
        return fingerprint(self.train.fingerprint, self.holdout.fingerprint, self.val.fingerprint)

    @property
    def select_on(self) -> str:
        """Which images `selection` has, as `DataChoice.select_on` says it."""
        return "val" if self.selection is self.val else "holdout"

    @cached_property
    def has_landmarks(self) -> bool:
        """Whether any face to train on has a known landmark."""
        return any(np.isfinite(label.landmarks).any() for label in self.all_train.labels)


def resolve_data(path: str | None) -> tuple[str, str]:
    """The data to use where the user gave `path` or nothing, and one line that says which."""
    if path is not None:
        return path, f"data: {path}" if path != "synthetic" else "data: built-in drawn scenes"
    if DEFAULT_FOLDER.is_dir():
        return str(DEFAULT_FOLDER), f"data: {DEFAULT_FOLDER} (found here; --data chooses another)"
    return "synthetic", (
        f"data: built-in drawn scenes (no {DEFAULT_FOLDER} here; --data PATH takes WIDER FACE)"
    )


def open_data(choice: DataChoice, parts: tuple[str, ...] = ("train", "val")) -> Data:
    """The images that `choice` names.

    Args:
        parts: what to open, the part that must be there first; the other may be missing (a
            warning says so). Parts not named are empty.

    Raises:
        UserError: a folder that is missing, empty or of neither layout; a bad annotation; too few
            images for a hold-out.
    """
    if choice.path == "synthetic":
        return synthetic_data(choice)
    root = Path(choice.path)
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; give WIDER FACE's folder, or synthetic for the "
            "built-in images"
        )
    found = {part: open_part(root, part) for part in parts}
    first = found[parts[0]]
    if first is None:
        raise UserError(f"{root}: no {parts[0]} images; a data folder has {layouts(parts[0])}")
    warnings = [line for part in found.values() if part for line in part[1]]
    warnings += [
        f"{root}: no {part} images; going on without them" for part in parts if found[part] is None
    ]
    nothing = Subset(first[0], [], "none")
    train, val = (found[part][0] if found.get(part) else nothing for part in ("train", "val"))
    return _split(choice, "WIDER FACE", root, train, val, warnings)


def synthetic_data(choice: DataChoice, train: int = TRAIN_IMAGES, val: int = VAL_IMAGES) -> Data:
    """The built-in drawn scenes: `train` images (hold-out included) and `val` images.

    The pictures are always the same; `choice` draws fraction and hold-out.
    """
    return _split(
        choice, "synthetic", None, DrawnImages("train", train), DrawnImages("val", val), []
    )


def _split(
    choice: DataChoice,
    name: str,
    root: Path | None,
    train: ImageSet,
    val: ImageSet,
    warnings: list[str],
) -> Data:
    def drawn(images: ImageSet, share: float, purpose: str) -> tuple[list[int], list[int]]:
        flags = stratified([label.name for label in images.labels], share, choice.seed, purpose)
        return (
            [i for i, flag in enumerate(flags) if flag],
            [i for i, flag in enumerate(flags) if not flag],
        )

    if choice.fraction < 1:
        train = Subset(train, drawn(train, choice.fraction, "fraction")[0], train.name)
    held, learnt = drawn(train, choice.holdout, "holdout")
    if len(train) and not (held and learnt):
        raise UserError(
            f"{choice.path}: {len(train)} training images are too few to hold out "
            f"{choice.holdout:g} of them; raise fraction or add images"
        )
    holdout = Subset(train, held, f"{name} hold-out")
    return Data(
        name=name,
        root=root,
        train=Subset(train, learnt, train.name),
        holdout=holdout,
        selection=val if choice.select_on == "val" else holdout,
        all_train=train,
        val=val,
        warnings=warnings,
    )
