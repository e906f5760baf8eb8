"""The folders of studies and of their trials: names, files, and which studies exist.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import exists, names_in
from trials.hints import DEFAULT_RUNS_DIR, command
from trials.stored import Manifest

DATABASE = "study.db"
MANIFEST = "study.json"
SPACE = "space.yaml"
"""The search space that the study was created with."""
CACHE = "cache"
"""Folder of the decoded images."""
CONTENTS = "image_files.npz"
"""Sizes, times and checksums of the images, see `detector.data.contents`."""
TRIALS = "trials"
"""Folder of the trials' own folders, see `trial_folder`."""


def add_runs_dir(group: argparse._ArgumentGroup) -> None:
    """Add the flag --runs-dir, for every command that reads studies."""
    group.add_argument(
        "--runs-dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_RUNS_DIR,
        help="folder that holds all studies (default: runs)",
    )


def database_url(path: Path) -> str:
    """SQLAlchemy's URL of an SQLite file, whatever characters its path has."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.resolve())).render_as_string()


def find_study(runs_dir: Path, name: str) -> Path:
    """The folder of an existing study.

    Raises:
        UserError: there is no such study (the message lists the existing ones).
    """
    folder = runs_dir / checked_name(name)
    if not exists(folder / MANIFEST):
        names = [path.name for path in study_folders(runs_dir)]
        listing = f"known: {', '.join(names)}" if names else "there are none yet"
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


def study_or_newest(runs_dir: Path, name: str | None, alternative: str = "") -> str:
    """`name`, or the name of the newest study if it is None.

    Args:
        alternative: what else the user can do if there is no study yet, for the message.

    Raises:
        UserError: there is no study.
    """
    name = name or newest_study(runs_dir)
    if name is None:
        raise UserError(
            f"{runs_dir}: has no study yet; run "
            f"{command('nas.search', {'space': 'quick', 'runs_dir': runs_dir})} first{alternative}"
        )
    return name


def newest_study(runs_dir: Path, space: str | None = None) -> str | None:
    """Name of the newest study, of one space if that is given; None if there is no study."""
    manifests = [(read_manifest(folder), folder.name) for folder in study_folders(runs_dir)]
    candidates = [
        (manifest.created, name)
        for manifest, name in manifests
        if space is None or manifest.space == space
    ]
    return max(candidates)[1] if candidates else None


def new_study_name(runs_dir: Path, space: str) -> str:
    """`<space>-NNN`, numbered one above the highest existing number."""
    numbers = [
        int(match[1])
        for name in names_in(runs_dir)
        if (match := re.fullmatch(rf"{re.escape(space)}-(\d+)", name))
    ]
    return f"{space}-{max(numbers, default=0) + 1:03d}"


def checked_name(name: str) -> str:
    """`name` itself if it is a valid name of a study.

    Raises:
        UserError: it has characters other than letters, digits, dot, dash and underscore.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(f"--study {name!r}: use letters, digits, dot, dash and underscore only")
    return name


def study_folders(runs_dir: Path) -> list[Path]:
    """Folders of all studies, sorted by name."""
    folders = (runs_dir / name for name in names_in(runs_dir))
    return [folder for folder in folders if os.path.exists(folder / MANIFEST)]


def trial_folder(study_folder: Path, number: int) -> Path:
    """The folder of a trial, with its log and its checkpoints."""
    return study_folder / TRIALS / f"{number:04d}"
