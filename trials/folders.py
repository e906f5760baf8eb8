"""The folder of a study: its name, its files, and which studies there are. No heavy imports."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from detector.base.errors import UserError
from trials.stored import Manifest

DATABASE = "study.db"
MANIFEST = "study.json"
DEFAULT_RUNS_DIR = Path("runs")


def add_runs_dir(group: argparse._ArgumentGroup) -> None:
    """Add the flag --runs-dir, for every command that reads studies."""
    group.add_argument(
        "--runs-dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_RUNS_DIR,
        help="folder that holds all studies (default: runs)",
    )


def runs_dir_flag(runs_dir: Path) -> str:
    """The flag with a space before it, for a command shown to the user; empty for the default."""
    return "" if runs_dir == DEFAULT_RUNS_DIR else f" --runs-dir {runs_dir}"


def find_study(runs_dir: Path, name: str) -> Path:
    """The folder of an existing study.

    Raises:
        UserError: there is no such study (the message lists the others).
    """
    folder = runs_dir / checked_name(name)
    if not (folder / MANIFEST).exists():
        known = [path.name for path in study_folders(runs_dir)]
        listing = f"known: {', '.join(known)}" if known else "there are none yet"
        raise UserError(f"study {name} is not in {runs_dir} ({listing})")
    return folder


def read_manifest(folder: Path) -> Manifest:
    """study.json of a study's folder.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return Manifest.read(path, "restore it from a copy, or start a new study")
    except FileNotFoundError as error:
        raise UserError(f"{path}: does not exist; restore it from a copy") from error


def study_or_newest(runs_dir: Path, name: str | None, otherwise: str = "") -> str:
    """`name`, or the newest study if it is None.

    Args:
        otherwise: what else the user can do if there is no study yet, for the message.

    Raises:
        UserError: there is none.
    """
    name = name or newest(runs_dir)
    if name is None:
        raise UserError(
            f"{runs_dir}: no study there yet; run python -m nas.search --space "
            f"search_spaces/quick.yaml first{otherwise}"
        )
    return name


def newest(runs_dir: Path, space: str | None = None) -> str | None:
    """Name of the newest study (of one space, if given); None if there is none."""
    manifests = [(read_manifest(folder), folder.name) for folder in study_folders(runs_dir)]
    created = [
        (manifest.created, name)
        for manifest, name in manifests
        if space is None or manifest.space == space
    ]
    return max(created)[1] if created else None


def new_name(runs_dir: Path, space: str) -> str:
    """`<space>-NNN` with the first number above all existing ones."""
    numbers = [
        int(match[1])
        for path in (runs_dir.iterdir() if runs_dir.is_dir() else ())
        if (match := re.fullmatch(rf"{re.escape(space)}-(\d+)", path.name))
    ]
    return f"{space}-{max(numbers, default=0) + 1:03d}"


def checked_name(name: str) -> str:
    """`name` itself, if it is valid as a folder's name.

    Raises:
        UserError: it has characters other than letters, digits, dot, dash and underscore.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(f"--study {name!r}: use letters, digits, dot, dash and underscore only")
    return name


def study_folders(runs_dir: Path) -> list[Path]:
    """Folders of all studies, by name."""
    return sorted(path.parent for path in runs_dir.glob(f"*/{MANIFEST}"))
