"""The folder of a competition entry: its files, their checksums, and how it is put in place.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

import re
import shutil
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detector.base.errors import UserError, first_line, size_text
from detector.base.files import (
    atomic_path,
    exists,
    is_file,
    is_folder,
    link_target,
    names_in,
    reason,
    sha256_of,
    write_text,
)
from detector.base.listing import list_files
from detector.weights.name_maps import parts_of
from nas.models.model_folder import CONFIG, Model, load_model

REPORT = "README.md"
RESULT = "evaluation.json"
"""As nas.evaluate writes it, with what an entry adds. A file metrics.json would make the entry the
folder of a retrained model, into which nas.evaluate writes."""
TRAINING = "training.json"
"""The metrics.json of the retrain."""
SPACE = "search_space.yaml"
PREDICTIONS = "predictions"
THOP = "thop.txt"
GRAPH = "model.onnx"
SUMS = "SHA256SUMS"
WEIGHTS_STEM = "weights"
MAX_UNPACKED = 4 << 30
"""Bytes that an archive may unpack to."""


def default_folder(model: Path) -> Path:
    """RUNS_DIR/STUDY/entry for the weights in RUNS_DIR/STUDY/best; for others beside them, named
    after them.

    Args:
        model: the file of the weights.
    """
    folder = model.parent
    if folder.name == "best":
        return folder.with_name("entry")
    if folder.parent.name == "retrained":
        return folder.parent.with_name(f"entry-{folder.name}")
    return model.with_name(f"{model.stem}-entry")


def zip_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def check_target(folder: Path, *, archive: bool, overwrite: bool) -> None:
    """Refuse a folder that must not be written to.

    Args:
        archive: whether the archive is to be written as well.

    Raises:
        UserError: it cannot be created; or something is there, and `overwrite` is not given or it
            is no entry.
    """
    if not is_folder(folder.parent):
        raise UserError(
            f"--output {folder}: folder {folder.parent} does not exist; create it first"
        )
    if exists(folder) and not is_folder(folder):
        raise UserError(f"--output {folder}: is not a folder; choose a new one")
    if names_in(folder):
        if not is_file(folder / SUMS):
            raise UserError(f"--output {folder}: is not empty, and no entry; choose a new folder")
        if not overwrite:
            raise UserError(
                f"--output {folder}: has an entry already; give --overwrite, or another folder"
            )
    if archive and exists(zip_path(folder)) and not overwrite:
        raise UserError(f"{zip_path(folder)}: exists already; give --overwrite, or another folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place when the block succeeds and is removed
    otherwise.

    Raises:
        UserError: it cannot be created or moved there.
    """
    folder = link_target(folder)
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.old")
    try:
        with atomic_path(folder) as staged:
            with writing(folder):
                staged.mkdir()
            yield staged
            if exists(folder):
                with writing(folder):
                    folder.rename(old)
    except BaseException:
        if exists(old) and not exists(folder):
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns a failure to write in the block into an error about the entry's folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--output {folder}: cannot be written ({reason(error)}); free some space or choose "
            "another folder"
        ) from error


def packed_weights(folder: Path) -> Path:
    """The file of an entry's weights; of several that belong together, the first.

    Raises:
        UserError: there is none, or others are beside it.
    """
    names = {name for name in names_in(folder) if name.startswith(f"{WEIGHTS_STEM}.")}
    for name in names:
        if {path.name for path in parts_of(folder / name).values()} == names:
            return folder / name
    raise UserError(
        f"{folder}: has {len(names)} files {WEIGHTS_STEM}.*, an entry has one; pack it again"
    )


def load_packed(folder: Path, by_config: bool) -> Model:
    """The model of an entry, from its files alone.

    Args:
        by_config: whether its weights do not contain the design, which config.yaml has.

    Raises:
        UserError: the files cannot be read.
    """
    return load_model(packed_weights(folder), str(folder / CONFIG) if by_config else None)


def files_of(folder: Path) -> list[str]:
    """The files below a folder by relative path, sorted, without SHA256SUMS."""
    return sorted(name for name in list_files(folder).files if name != SUMS)


def write_sums(folder: Path) -> int:
    """Write SHA256SUMS, as `sha256sum -c` reads it; returns the number of files in it."""
    names = files_of(folder)
    lines = [_sums_line(sha256_of(folder / name), name) for name in names]
    write_text(folder / SUMS, "".join(f"{line}\n" for line in lines))
    return len(names)


def _sums_line(digest: str, name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}"


def changed_files(folder: Path) -> list[str]:
    """What differs from SHA256SUMS: changed, missing and unlisted files, one line each.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    path = folder / SUMS
    if not is_file(path):
        raise UserError(f"{folder}: is not an entry, it has no {SUMS}; give a folder of nas.entry")
    found, listed = [], set()
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.removesuffix("\n").split("\n")):
        match = re.fullmatch(r"(\\?)([0-9a-f]{64}) [ *](.+)", line)
        if match is None:
            found.append(f"{SUMS}:{number + 1}: is not a line of sha256sum")
            continue
        name = _unescaped(match[3]) if match[1] else match[3]
        listed.add(name)
        if ".." in Path(name).parts or Path(name).is_absolute():
            found.append(f"{SUMS}:{number + 1}: {name} is outside of the entry")
        elif not is_file(folder / name):
            found.append(f"{name}: is missing")
        elif sha256_of(folder / name) != match[2]:
            found.append(f"{name}: its SHA-256 is another one")
    found += [f"{name}: is not listed in {SUMS}" for name in files_of(folder) if name not in listed]
    return found


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder of an entry; of an archive of one a temporary copy.

    Raises:
        UserError: it is an archive, but of no entry, or cannot be unpacked.
    """
    if path.suffix != ".zip" or not is_file(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                if size > MAX_UNPACKED:
                    raise UserError(
                        f"{path}: unpacks to {size_text(size)}; an entry has at most "
                        f"{size_text(MAX_UNPACKED)}"
                    )
                archive.extractall(temporary)
        except (OSError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise UserError(
                f"{path}: cannot be unpacked ({first_line(error)}); give another archive"
            ) from error
        folders = [Path(temporary) / name for name in names_in(Path(temporary))]
        if len(folders) != 1 or not is_file(folders[0] / SUMS):
            raise UserError(f"{path}: is no archive of an entry; give one of nas.entry --zip")
        yield folders[0]


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), name)


def write_zip(folder: Path, archive: Path, name: str) -> None:
    """Write an archive of all files of an entry, below the folder `name`."""
    with (
        writing(archive),
        atomic_path(archive) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for relative in (*files_of(folder), SUMS):
            file.write(folder / relative, f"{name}/{relative}")
