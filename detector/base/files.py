"""Atomic writes: a reader sees the old file or the whole new one, never a part of it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detector.base.errors import UserError


@contextmanager
def atomic_path(path: Path, suffix: str = ".tmp", fsync: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, for a file or a folder that the block writes there.

    It is renamed to `path` when the block succeeds, and removed otherwise. A file replaces an
    older one; a folder cannot replace one that holds anything.

    Args:
        suffix: of the temporary path, for writers that go by it.
        fsync: whether the file must be on disk, not in the system's cache, before the rename.

    Raises:
        OSError: the rename failed; errors of the block are passed on.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{suffix}")
    try:
        yield temporary
        if fsync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):  # a rename between hard links of one file leaves both
                temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write all of `content` or nothing.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another place"
        ) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of `text` in UTF-8."""
    write_bytes(path, text.encode())
