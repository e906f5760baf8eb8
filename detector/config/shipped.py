"""Files that come with the project, found by name from any folder. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from detector.base.errors import UserError, did_you_mean
from detector.base.files import exists, is_folder

SHIPPED = Path(__file__).resolve().parents[2] / "search_spaces"
"""The folder of the checkout, or the package that a wheel installs beside this one."""

Kind = Literal["space", "preset", "recipe", "table"]
PATTERNS: dict[Kind, str] = {
    "space": "*.yaml",
    "preset": "presets/*.yaml",
    "recipe": "recipes/*.yaml",
    "table": "*.json",
}


def shipped_files(kind: Kind) -> list[Path]:
    """The shipped files of a kind, by name."""
    return sorted(SHIPPED.glob(PATTERNS[kind]))


def find_file(name: str | Path, kind: Kind) -> Path:
    """The file that a command line names.

    Args:
        name: a path, or a shipped file as "retina", "retina.yaml" or "search_spaces/retina.yaml";
            what exists under that path comes first.

    Raises:
        UserError: there is neither.
    """
    path = Path(name)
    if exists(path) and not is_folder(path):
        return path
    files = shipped_files(kind)
    for file in files:
        inside = file.relative_to(SHIPPED.parent).as_posix()
        if path.as_posix() in (file.stem, file.name, inside):
            return file
    known = ", ".join(file.stem for file in files)
    if path.suffix in (".yaml", ".yml", ".json") or len(path.parts) > 1:
        raise UserError(f"{name}: no such file; give another one, or a {kind} by name: {known}")
    hint = did_you_mean(str(name), [file.stem for file in files])
    raise UserError(
        f"{kind} {str(name)!r} is unknown; {f'{hint} There' if hint else 'there'} are {known}"
    )
