"""What a file is by its first bytes, and whether a checkpoint is intact. No torch, runs no code."""

from __future__ import annotations

import io
import pickletools
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from detector.base.errors import UserError
from detector.base.files import open_file
from detector.base.json_file import parse_json

HEAD = 4096
"""Bytes that are enough to recognise a file."""
PICKLE_BYTES = 2**24
"""Most bytes of a pickle that are searched for the classes it needs."""
MAX_HEADER = 10**8
"""Most bytes of the JSON header that begins a safetensors file."""
TORCH_MODULES = ("torch", "collections", "_codecs", "__builtin__", "builtins")
"""Modules of which `weights_only=True` accepts names."""

_STARTS = (
    (b"version https://git-lfs", "a git-LFS pointer, not the file itself; run git lfs pull"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"BZh", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file; unpack it first"),
    (b"Rar!", "a RAR file; unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF file"),
    (b"GGUF", "a GGUF file"),
)


class DamagedCheckpoint(UserError):
    """A file in the place of a checkpoint that holds none, or not all of one."""


def kind_of(path: Path) -> str:
    """What a file that holds no readable weights seems to be, for a message.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        return "a folder"
    with open_file(path) as file:
        head = file.read(HEAD)
        if not head:
            return "an empty file"
        for start, kind in _STARTS:
            if head.startswith(start):
                return kind
        if head.startswith(b"PK"):
            return _zip_kind(file)
        if not head.strip(b"\0"):
            return "a file of zeros"
        if head[4:8] == b"TFL3":
            return "a TensorFlow Lite model"
        if head[257:262] == b"ustar" or tarfile.is_tarfile(io.BytesIO(head)):
            return "a tar archive"
        if _is_safetensors(head, path.stat().st_size):
            return "a safetensors file"
        if b"onnx" in head[:200] or (head[:1] == b"\x08" and b"pytorch" in head[:64]):
            return "an ONNX model"
        if head[:1] == b"\x80" and head[1] in range(2, 6):  # the opcode PROTO, and a version
            file.seek(0)
            return _pickle_kind(file.read(PICKLE_BYTES))
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page, as a failed download leaves it; download the file again"
    if text.startswith(b"<?xml"):
        return "an XML file"
    if text.startswith((b"{", b"[")):
        return "a JSON file"
    return "a text file" if _is_text(head) else "a file of unknown kind"


def damage(path: Path) -> str | None:
    """Why a checkpoint is not as `checkpoint.save` wrote it; None if it is intact.

    torch stores a checksum of every part, but does not check it when it reads.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: it cannot be read.
    """
    if path.is_dir():
        return "a folder"
    with open_file(path) as file:
        if not zipfile.is_zipfile(file):
            starts_as_zip = file.seek(0) == 0 and file.read(2) == b"PK"
            return "cut off" if starts_as_zip else kind_of(path)
        return zip_damage(file)


def discard_damaged(path: Path) -> str | None:
    """Remove a checkpoint that is damaged: it counts as absent, and training starts again.

    Returns:
        A line that says so; None if the checkpoint is intact, or there is none.

    Raises:
        OSError: it cannot be read, or not be removed.
    """
    try:
        reason = damage(path)
    except FileNotFoundError:
        return None
    if reason is None:
        return None
    discard(path)
    return f"{path.name} was damaged ({reason}) and is removed; training starts again"


def discard(path: Path) -> None:
    """Remove a damaged checkpoint; what was put there and is no file is moved aside.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir():
        path.rename(path.with_name(f"{path.name}.damaged"))
    else:
        path.unlink(missing_ok=True)  # another process may have noticed it, too


def zip_damage(file: IO[bytes]) -> str | None:
    """Why a zip file is not as torch.save wrote it; None if all its checksums are right."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            # torch stores all parts as they are, so nothing in its files grows when it is read.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                return "has compressed parts, which torch never writes"
            if not any(entry.CRC for entry in entries):
                return None  # torch.serialization.set_crc32_options(False)
            wrong = archive.testzip()
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return "it has no data.pkl"
    except Exception as error:  # a damaged directory raises errors of many kinds
        return f"its table of contents is damaged ({type(error).__name__})"
    return f"the checksum of its part {wrong.rpartition('/')[2]!r} is wrong" if wrong else None


def _zip_kind(file: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
            if "constants.pkl" in names:
                return "a TorchScript archive, which holds a program"
            if "data.pkl" in names:
                damaged = zip_damage(file)
                if damaged:
                    return f"a damaged torch file: {damaged}"
                pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                with archive.open(pickles[0]) as pickled:
                    return _pickle_kind(pickled.read(PICKLE_BYTES))
            if any(name.endswith(".npy") for name in names):
                return "a NumPy archive"
    except Exception:  # a damaged zip raises errors of many kinds
        return "a zip archive that is cut off or damaged"
    return "a zip archive without data.pkl, so not one of torch.save"


def _pickle_kind(pickled: bytes) -> str:
    """What a pickle holds, by its opcodes; it is not run."""
    foreign = None
    try:
        for module, name in _names(pickled):
            known = module.partition(".")[0] in TORCH_MODULES and name != "getattr"
            if not known or module.startswith("torch.nn.modules"):
                foreign = foreign or f"{module}.{name}"
    except Exception:  # damaged pickles raise errors of many kinds
        if foreign is None:
            return "a pickle that is cut off or damaged"
    if foreign is None:
        return "a pickle that torch cannot read"
    foreign = foreign[:80].encode("unicode_escape").decode()
    return f"a pickle that needs the class {foreign}, so more than tensors and plain data"


def _names(pickled: bytes) -> Iterator[tuple[str, str]]:
    """(module, name) of each object that a pickle imports."""
    strings: list[str] = []
    stream = io.BytesIO(pickled)
    while stream.tell() < len(pickled):  # torch's older format is several pickles, then the values
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
                yield module, name
            elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                yield strings[-2], strings[-1]
            elif isinstance(argument, str):
                strings.append(argument)


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 2 <= length <= min(MAX_HEADER, size - 8):
        return False
    if 8 + length > len(head):
        return b'"dtype"' in head or b"__metadata__" in head
    try:
        return isinstance(parse_json(head[8 : 8 + length]), dict)
    except ValueError:
        return False


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise a character that HEAD cuts in two
            return False
        text = head[: error.start].decode()
    return "\0" not in text
