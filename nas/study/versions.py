"""Which code and packages made a result. Light to import."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "optuna", "ray", "mlflow", "thop", "numpy", "opencv-python")


def versions() -> dict[str, str]:
    """Of Python and those of PACKAGES that are there (maybe no MLflow: it is not always told);
    `commit` is git's of this code, with "+" where files differ from it, left out where the code
    lies in no repository."""
    commit = _git("rev-parse", "HEAD")
    if commit and _git("status", "--porcelain", "--untracked-files=no"):
        commit += "+"
    found = {name: _version(name) for name in PACKAGES}
    return (
        {"python": sys.version.split()[0]}
        | {name: number for name, number in found.items() if number is not None}
        | ({"commit": commit} if commit else {})
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*args: str) -> str:
    """Its answer, empty where git is not installed or this is no repository."""
    try:
        done = subprocess.run(
            ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
