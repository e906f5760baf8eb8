"""Files that the user names: read within bounds, written atomically.

Only regular files are read (see `open_file`), so that a named pipe does not hang a command and an
endless device does not fill the memory. A reader of what is written here sees the old file or the
whole new one, never a part of it. Files below a folder are found by `detector.base.listing`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from detector.base.errors import UserError, size_text

MAX_BYTES = 1 << 30
"""Largest file that is read as a whole; WIDER FACE's own annotation has 5 MB, an image 10 MB."""

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


# -- what a path is ---------------------------------------------------------------------------


def exists(path: Path) -> bool:
    """`is_file` or `is_folder`, or anything else; a link to nothing does not exist.

    Raises:
        UserError: a folder on the way to it is closed to this user.
    """
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Whether it is a regular file, also through links; False if it does not exist.

    Raises:
        UserError: as `exists`.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Whether it is a folder, also through links; False if it does not exist.

    Raises:
        UserError: as `exists`.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def names_in(folder: Path) -> list[str]:
    """The names of all that is in a folder, sorted; none if it does not exist.

    Raises:
        UserError: it cannot be listed.
    """
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot_read(folder, error, "give another folder") from error


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except PermissionError as error:
        raise cannot_read(path, error, "") from error
    except (OSError, ValueError):  # missing, a link to itself, a name that is too long or has a NUL
        return None


def cannot_read(path: str | Path, error: OSError, way_out: str) -> UserError:
    """The error for a file or folder that cannot be opened or listed.

    Args:
        way_out: what the user can do, unless it is a matter of permissions.
    """
    return _no_permission(path, error) or UserError(
        f"{path}: cannot be read ({reason(error)}); {way_out}"
    )


def file_error(error: OSError) -> UserError:
    """The error for a file of which nobody else has reported what is wrong; it must have a
    `filename`."""
    path = os.fsdecode(error.filename)
    return _no_permission(path, error) or UserError(
        f"{path}: {reason(error)}; check the path, and that its disk works and has space"
    )


def _no_permission(path: str | Path, error: OSError) -> UserError | None:
    if error.errno not in (errno.EACCES, errno.EPERM):
        return None
    closed = _closed_folder(path)
    what = f"its folder {closed} is closed to this user" if closed else "no permission"
    return UserError(
        f"{path}: {what}; allow it with chmod on {closed or path}, or run as the owner"
    )


def reason(error: OSError) -> str:
    """What is wrong with a file, such as "No such file or directory"."""
    return error.strerror or type(error).__name__


def _closed_folder(path: str | Path) -> Path | None:
    """The first folder on the way to a path that this user may not enter."""
    above = reversed(Path(os.path.abspath(path)).parents)
    return next((p for p in above if not os.access(p, os.X_OK, effective_ids=_EFFECTIVE)), None)


_EFFECTIVE = os.access in os.supports_effective_ids


# -- reading ----------------------------------------------------------------------------------


def open_file(path: str | Path) -> BufferedReader:
    """Opens a regular file for reading; anything else is refused before it is opened.

    Raises:
        OSError: with a `strerror` for the user, such as "is a named pipe, not a file".
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        if os.path.islink(path):
            target = os.readlink(path)
            raise _error(
                error.errno, f"is a link to {target}, which does not exist", path
            ) from None
        raise
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "of an unknown kind")
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise _error(code, f"is {kind}, not a file", path)
    return open(path, "rb")


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """All of a regular file.

    Raises:
        OSError: as `open_file`; or it has more than `limit` bytes.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise _error(
                errno.EFBIG, f"has {size_text(size)}; at most {size_text(limit)} are read", path
            )
        return file.read()


def read_text(path: str | Path, limit: int = MAX_BYTES) -> str:
    """All of a regular file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, limit).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _error(code: int | None, message: str, path: str | Path) -> OSError:
    return OSError(code or errno.EINVAL, message, str(path))


# -- writing ----------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: Path, suffix: str = ".tmp", fsync: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, for a file or a folder that the block writes there.

    It is renamed to `path` when the block succeeds, and removed otherwise. A file replaces an
    older one; a folder cannot replace one that holds anything. Where `path` is a link, its target
    is replaced. What exists and is neither a file nor a folder (a device, a named pipe) is
    written to directly.

    Args:
        suffix: of the temporary path, for writers that go by it.
        fsync: whether the file, or all files of the folder, must be on disk, not in the system's
            cache, before the rename, and the rename before the return.

    Raises:
        OSError: the rename failed; errors of the block are passed on.
    """
    if _is_special(path):
        yield path
        return
    path = link_target(path)
    name = path.name.encode(errors="ignore").decode()  # some writers only take UTF-8
    temporary = path.with_name(f".{name}.{uuid.uuid4().hex[:12]}{suffix}")
    try:
        yield temporary
        if fsync:
            for part in (*temporary.rglob("*"), temporary):
                _fsync(part)
        os.replace(temporary, path)
        if fsync:
            _fsync(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):  # a rename between hard links of one file leaves both
                temporary.unlink()


def _fsync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some file systems cannot do this for a folder, and some folders may only be written to.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.EACCES, errno.EBADF)):
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write all of `content` or nothing; see `atomic_path`.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        descriptor = _own_descriptor(path)
        if descriptor is not None:  # opened anew, a file would be overwritten from its beginning
            sys.stdout.flush()
            with open(os.dup(descriptor), "wb") as stream:
                stream.write(content)
            return
        with atomic_path(path, fsync=True) as target:
            target.write_bytes(content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({reason(error)}); free some space or choose another place"
        ) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of `text` in UTF-8."""
    write_bytes(path, text.encode())


def link_target(path: Path) -> Path:
    """The path that a link leads to, which may not exist; any other path itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _is_special(path: Path) -> bool:
    """Whether it exists and is neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # of any kind: writing reports it
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _own_descriptor(path: Path) -> int | None:
    """The number of the open file that /dev/stdout and its like stand for."""
    for _ in range(4):  # /dev/stdout is a link to /proc/self/fd/1, and /dev/fd one to /proc/self/fd
        folder, name = os.path.split(path)
        if name.isdecimal() and os.path.realpath(folder) == f"/proc/{os.getpid()}/fd":
            return int(name)
        if not os.path.islink(path):
            return None
        path = Path(folder, os.readlink(path))
    return None
