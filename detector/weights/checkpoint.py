"""Checkpoints: weights with their design and recipe, written whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from detector.base.errors import UserError
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe

FORMAT = 1  # raised when older readers would misread the file


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    config: Detector
    recipe: Recipe
    model: dict[str, torch.Tensor]
    """State of the detector as `build_detector(config)` names it."""
    state: dict = field(default_factory=dict)
    """What else the writer keeps; of training: `epoch` (finished ones) and `optimizer`."""


def save(
    path: Path,
    model: nn.Module,
    config: Detector,
    recipe: Recipe,
    state: dict,
    metadata: dict | None = None,
) -> None:
    """Writes `path` and, beside it, the readable `<stem>.json`; each is replaced in one step.

    The file is a dict with the keys `format`, `detector` and `recipe` (plain data), `model` (state
    dict) and `state`; it loads with `weights_only=True`.

    Args:
        state: tensors and plain data that training needs to go on.
        metadata: plain data for the readable file, beside the design and the recipe.

    Raises:
        UserError: the disk is full or the folder not writable; an older checkpoint stays whole.
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
    _replace(path, lambda file: torch.save(content, file))
    _replace(
        path.with_suffix(".json"), lambda file: file.write(json.dumps(readable, indent=2).encode())
    )


def load(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """What `save` wrote, tensors on `device`. Runs no code of the file (`weights_only=True`).

    Raises:
        UserError: no such file, no checkpoint, or one of another program or version.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # about foreign pickles; the error says more
            content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; check the path") from None
    except Exception as error:  # a file of any other kind makes the reader fail in any way
        raise UserError(
            f"{path}: not a readable checkpoint ({why_unreadable(error)}); "
            "give a file that training wrote, such as last.pt"
        ) from None
    if not is_checkpoint(content):
        raise UserError(
            f"{path}: not a checkpoint of this program; "
            "give a file that training wrote, such as last.pt"
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
    """Why torch.load refused a file, without torch's advice to load it unsafely."""
    if isinstance(error, (pickle.UnpicklingError, LookupError, EOFError)):  # text, an empty file
        return "no torch file, or one that holds more than tensors and plain data"
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_checkpoint(content: object) -> bool:
    """Whether a loaded file is one of ours, whatever its version."""
    return isinstance(content, dict) and {"format", "detector", "recipe", "model", "state"} <= set(
        content
    )


def _replace(path: Path, write) -> None:
    """Writes aside, then renames: a reader sees the old file or the new one, never half."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write in a RuntimeError
        aside.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be written ({reason}); free some disk space or choose "
            "another folder, then run the same command again"
        ) from error
