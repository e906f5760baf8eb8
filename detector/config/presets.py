"""Fixed designs in YAML files, mainly the presets. Imports no torch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from detector.base.errors import ConfigError, UserError
from detector.base.struct import Struct
from detector.base.yaml_file import Document, read
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.config.shipped import SHIPPED

PRESETS = SHIPPED / "presets"

S = TypeVar("S", bound=Struct)


def load_preset(name: str) -> tuple[Detector, Recipe]:
    """A fixed design and its training recipe.

    Args:
        name: stem of a file in search_spaces/presets.

    Raises:
        UserError: there is no preset of that name, or its file breaks a rule.
    """
    path = PRESETS / f"{name}.yaml"
    if not path.is_file() or Path(name).name != name:
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise UserError(f"preset {name!r} is unknown; there are {known}")
    return load_design(path)


def load_design(path: Path) -> tuple[Detector, Recipe]:
    """A design and its recipe from a YAML file in the form of a preset, such as config.yaml beside
    retrained weights.

    Raises:
        UserError: the file cannot be read or breaks a rule.
    """
    document = read(path)
    for key in document.data:
        if key not in ("detector", "recipe"):
            raise document.error((key,), "unknown key; known keys: detector, recipe")
    if "detector" not in document.data:
        raise document.error((), "detector: missing key; add it")
    return section(document, "detector", Detector, {}), section(document, "recipe", Recipe, {})


def section(document: Document, key: str, struct: type[S], defaults: dict) -> S:
    """A part of the file as a configuration dataclass.

    Raises:
        UserError: it breaks a rule; names the line.
    """
    data = document.data.get(key) or {}
    if not isinstance(data, dict):
        raise document.error(
            (key,),
            f"{data!r} must be a mapping with keys among "
            f"{', '.join(f.name for f in fields(struct))}",
        )
    try:
        return struct.from_dict(merged(defaults, data))
    except ConfigError as error:
        path, _, rule = str(error).partition(": ")
        path = path.removeprefix(f"{key}.")
        raise document.error((key, *path.split(".")), rule) from error


def merged(base: dict, changes: dict) -> dict:
    """`base` updated with `changes`, recursively."""
    return base | {
        key: merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in changes.items()
    }
