"""Which code and packages produced a result. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "optuna", "ray", "mlflow", "thop", "numpy", "opencv-python")
ROOT = Path(__file__).resolve().parents[2]
"""The folder with the packages of this project."""


def versions() -> dict[str, str]:
    """Versions of Python and of the installed PACKAGES, and `commit`, if ROOT is a git repository:
    the commit of this code, with "+" if files differ from it."""
    installed = {name: _version(name) for name in PACKAGES}
    commit = _commit(ROOT)
    return (
        {"python": sys.version.split()[0]}
        | {name: number for name, number in installed.items() if number is not None}
        | ({"commit": commit} if commit else {})
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(root: Path) -> str | None:
    """The commit of the repository in `root`; None if `root` is not the top folder of one, as in a
    virtual environment inside another project's repository."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit and _git(root, "status", "--porcelain", "--untracked-files=no"):
        commit += "+"
    return commit


def _git(folder: Path, *args: str) -> str | None:
    """The output of a git command; None if it fails or git is not installed."""
    try:
        result = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
