"""Checkpoints: weights with their design and recipe, written atomically."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch
from torch import nn

from detector.base.errors import UserError
from detector.base.files import atomic_path
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from detector.weights.file_names import LAST

FORMAT = 1  # raised when older readers would misread the file


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    config: Detector
    recipe: Recipe
    model: dict[str, torch.Tensor]
    """State of the detector as `build_detector(config)` names it."""
    state: dict = field(default_factory=dict)
    """What else the writer needs to resume, see `TrainingState.save`; empty for finished models."""


def save(
    path: Path,
    model: nn.Module,
    config: Detector,
    recipe: Recipe,
    state: dict,
    metadata: dict | None = None,
) -> None:
    """Writes `path` and, beside it, the readable `<stem>.json`, each atomically.

    The file is a dict with the keys `format`, `detector` and `recipe` (plain data), `model` (state
    dict) and `state`; it loads with `weights_only=True`.

    Args:
        state: tensors and plain data that training needs to resume.
        metadata: plain data for the readable file, besides the design and the recipe.

    Raises:
        UserError: the disk is full or the folder not writable; an older checkpoint stays intact.
    """
    path = Path(path)
    content = {
        "format": FORMAT,
        "detector": config.to_dict(),
        "recipe": recipe.to_dict(),
        "model": model.state_dict(),
        "state": state,
    }
    readable = {
        "design": arch_hash(config),
        **(metadata or {}),
        "torch": str(torch.__version__),
        "detector": config.to_dict(),
        "recipe": recipe.to_dict(),
    }
    _write(path, lambda file: torch.save(content, file))
    _write(
        path.with_suffix(".json"), lambda file: file.write(json.dumps(readable, indent=2).encode())
    )


def load(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Reads what `save` wrote, with tensors on `device`. Runs no code from the file
    (`weights_only=True`).

    Raises:
        UserError: no such file, not a checkpoint, or one of another program or version.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # about foreign pickles; the error is clearer
            content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; check the path") from None
    except Exception as error:  # other kinds of files raise any exception
        raise UserError(
            f"{path}: not a readable checkpoint ({why_unreadable(error)}); "
            f"give a file that training wrote, such as {LAST}"
        ) from None
    if not is_checkpoint(content):
        raise UserError(
            f"{path}: not a checkpoint of this program; "
            f"give a file that training wrote, such as {LAST}"
        )
    if content["format"] != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {content['format']}, this version reads "
            f"{FORMAT}; use the version that wrote it"
        )
    return Checkpoint(
        config=Detector.from_dict(content["detector"], f"{path}: detector"),
        recipe=Recipe.from_dict(content["recipe"], f"{path}: recipe"),
        model=content["model"],
        state=content["state"],
    )


def why_unreadable(error: Exception) -> str:
    """Why torch.load rejected a file, without torch's advice to load it unsafely."""
    if isinstance(error, (pickle.UnpicklingError, LookupError, EOFError)):  # text, an empty file
        return "no torch file, or one with more than tensors and plain data"
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_checkpoint(content: object) -> bool:
    """Whether a loaded file is a checkpoint of this program, of any version."""
    return isinstance(content, dict) and {"format", "detector", "recipe", "model", "state"} <= set(
        content
    )


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, fsync=True) as temporary, open(temporary, "wb") as file:
            write(file)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write in a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be written ({reason}); free some disk space or choose "
            "another folder, then run the same command again"
        ) from error
