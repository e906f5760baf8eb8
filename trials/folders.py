"""The folder of a study: its name, its files, which ones there are. Light to import."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from detector.base.errors import UserError

DATABASE = "study.db"
MANIFEST = "study.json"


def add_runs_dir(group: argparse._ArgumentGroup) -> None:
    """The flag --runs-dir, for every command that looks for studies."""
    group.add_argument(
        "--runs-dir",
        metavar="DIR",
        type=Path,
        default=Path("runs"),
        help="folder that holds all studies (default: runs)",
    )


def find_study(runs_dir: Path, name: str) -> Path:
    """The folder of an existing study.

    Raises:
        UserError: unknown (the known ones are listed).
    """
    folder = runs_dir / checked_name(name)
    if not (folder / MANIFEST).exists():
        known = [path.name for path in study_folders(runs_dir)]
        listing = f"known: {', '.join(known)}" if known else "there is none yet"
        raise UserError(f"study {name} is not in {runs_dir} ({listing})")
    return folder


def read_manifest(folder: Path) -> dict:
    """study.json of a study's folder.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); restore it from a copy, "
            "or start a new study"
        ) from error


def newest(runs_dir: Path, space: str | None = None) -> str | None:
    """Name of the study made last (of one space, where given), or none."""
    made = [(read_manifest(folder), folder.name) for folder in study_folders(runs_dir)]
    made = [
        (manifest["created"], name)
        for manifest, name in made
        if space is None or manifest["space"] == space
    ]
    return max(made)[1] if made else None


def new_name(runs_dir: Path, space: str) -> str:
    """The first free `<space>-NNN` above all taken ones."""
    taken = [
        int(match[1])
        for path in (runs_dir.iterdir() if runs_dir.is_dir() else ())
        if (match := re.fullmatch(rf"{re.escape(space)}-(\d+)", path.name))
    ]
    return f"{space}-{max(taken, default=0) + 1:03d}"


def checked_name(name: str) -> str:
    """`name` itself, if a folder may bear it.

    Raises:
        UserError: it has other characters than letters, digits, dot, dash and underscore.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(f"--study {name!r}: use letters, digits, dot, dash and underscore only")
    return name


def study_folders(runs_dir: Path) -> list[Path]:
    """Folders of all studies, by name."""
    return sorted(path.parent for path in runs_dir.glob(f"*/{MANIFEST}"))


def first_line(error: Exception) -> str:
    """The first line of what a library complains about, at most 200 characters of it."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
