"""stdout and stderr of a command: neither an unusual locale nor a closed pipe ends its work."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

ERRORS = "detector.readable"
"""Name of the error handler, for text that the encoding of an output lacks."""
_ASCII = str.maketrans(
    {
        "×": "x",
        "–": "-",
        "—": "-",
        "−": "-",
        "→": "->",
        "±": "+-",
        "≤": "<=",
        "≥": ">=",
        "…": "...",
        "█": "#",
        "²": "2",
        "³": "3",
        "η": "eta",
        "₁": "1",
        "₀": "0",
    }
)


def counted(number: int, noun: str) -> str:
    """A number and its noun, such as 1 trial or 2 trials."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_wrapped(text: str, indent: str = "") -> None:
    """Print a sentence: on a terminal in lines that end between words, elsewhere as one line. Not
    for commands, which are to be pasted.

    Args:
        indent: before its second and all later lines.
    """
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(
            text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    print(text)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """What is written in place of characters that cannot be encoded."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_ASCII)
    return "".join(_ascii(character) for character in text), error.end


def _ascii(character: str) -> str:
    if character.isascii():
        return character
    if "\ud800" <= character <= "\udfff":  # a byte of a file name that is not UTF-8
        return character.encode("ascii", "backslashreplace").decode()
    return "?"


codecs.register_error(ERRORS, _replace)


class _Descriptor(io.RawIOBase):
    """Writes to a file descriptor; after the first error it discards everything.

    A command whose reader has gone (`| head`) or whose disk is full can thus finish its work.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data) -> int | None:
        if self.error is None:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                return None
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


@dataclass
class Output:
    """What became of stdout."""

    _stdout: _Descriptor | None = None

    def error(self) -> str | None:
        """Why stdout is incomplete; None if it is not, or only because its reader has closed it,
        such as head."""
        with contextlib.suppress(ValueError):  # it is closed
            sys.stdout.flush()
        error = self._stdout.error if self._stdout else None
        if error is None or error.errno == errno.EPIPE:
            return None
        return f"stdout cannot be written ({error.strerror}); everything else is done"


@contextlib.contextmanager
def safe_output() -> Iterator[Output]:
    """Makes stdout and stderr accept every text, and ignore that they cannot be written."""
    for descriptor in range(3):  # otherwise a file of ours would take the place of a closed one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    before, output = (sys.stdout, sys.stderr), Output()
    try:
        sys.stdout, output._stdout = _safe(sys.stdout)
        sys.stderr, _ = _safe(sys.stderr)
        yield output
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _safe(stream) -> tuple[io.TextIOBase, _Descriptor | None]:
    """A stream that takes the place of stdout or stderr, and what it writes to."""
    if stream is None:  # closed by the caller
        return open(os.devnull, "w", encoding="utf-8", errors=ERRORS), None
    if type(stream) is not io.TextIOWrapper or not isinstance(
        getattr(stream.buffer, "raw", stream.buffer), io.FileIO
    ):  # not the process's own, such as a notebook's
        return stream, None
    stream.flush()
    descriptor = _Descriptor(stream.fileno())
    text = io.TextIOWrapper(
        io.BufferedWriter(descriptor),
        encoding=stream.encoding,
        errors=ERRORS,
        line_buffering=True,  # a log is followed while the command works
        write_through=stream.write_through,
    )
    return text, descriptor
