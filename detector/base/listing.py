"""The files below a folder, and the names by which other files refer to them."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from detector.base.errors import UserError

MAX_FILES = 10_000_000
"""In one folder and all below it; links that lead to each other can make any number."""


@dataclass(frozen=True)
class Listing:
    """All that is below a folder, except folders themselves."""

    files: dict[str, os.DirEntry[str]] = field(default_factory=dict)
    """By the path relative to the folder, with `/`. Not all can be read: links to nothing and named
    pipes are among them."""
    closed: dict[str, OSError] = field(default_factory=dict)
    """Folders that could not be listed, by relative path ("" for the folder itself), and why."""


def list_files(folder: Path) -> Listing:
    """Lists a folder and all below it, following links; a folder inside itself is listed once.

    Raises:
        UserError: more than `MAX_FILES` files.
    """
    listing = Listing()
    pending: list[tuple[str, str, frozenset]] = [("", os.fspath(folder), frozenset())]
    while pending:
        prefix, path, above = pending.pop()
        try:
            status = os.stat(path)
            identity = status.st_dev, status.st_ino
            if identity in above:
                continue
            above |= {identity}
            with os.scandir(path) as entries:
                for entry in entries:
                    name = f"{prefix}{entry.name}"
                    if _is_folder(entry):
                        pending.append((f"{name}/", entry.path, above))
                    else:
                        listing.files[name] = entry
        except OSError as error:
            listing.closed[prefix.rstrip("/")] = error
        if len(listing.files) > MAX_FILES:
            raise UserError(
                f"{folder}: more than {MAX_FILES:,} files, perhaps by links that lead to each "
                "other; give a smaller folder"
            )
    return listing


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere; reading the file says so
        return False


def clean_name(name: str) -> str:
    r"""A file's relative path as the system writes it: `.\event\\x.jpg` → `event/x.jpg`."""
    if "\\" in name or "//" in name or name.startswith(("./", "/")) or "/./" in name:
        parts = name.replace("\\", "/").split("/")
        return "/".join(part for part in parts if part not in ("", "."))
    return name


def find_names(wanted: Collection[str], present: Collection[str]) -> dict[str, str]:
    """The file that each name means: wanted name → present name; names without a file are missing.

    The exact name comes first. Otherwise the only one counts that is not meant by another exact
    name and differs in how accents are encoded (macOS decomposes them), or else in upper and
    lower case, too.
    """
    found = {name: name for name in wanted if name in present}
    for normal in (_composed, _case_folded):
        missing = [name for name in wanted if name not in found]
        if not missing:
            break
        spellings = _spellings(present, set(found.values()), normal)
        rivals = _spellings(missing, (), normal)
        for name in missing:
            key = normal(name)
            if len(spellings[key]) == 1 and len(rivals[key]) == 1:
                found[name] = spellings[key][0]
    return found


def _spellings(
    names: Iterable[str], without: Collection[str], normal: Callable[[str], str]
) -> defaultdict[str, list[str]]:
    spellings = defaultdict(list)
    for name in names:
        if name not in without:
            spellings[normal(name)].append(name)
    return spellings


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", clean_name(name))


def _case_folded(name: str) -> str:
    return _composed(name).casefold()
