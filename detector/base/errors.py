"""Errors, those above all that the user of a command can cause and fix."""

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """One line: what is wrong, where (file, key, line), the rule, and how to fix it.

    Commands print it without a traceback and exit with 2; a trial that raises one is recorded as
    failed.
    """


class ConfigError(UserError):
    """A configuration that breaks a rule, named as the user typed it."""


class TrainingError(Exception):
    """Training cannot continue (a loss is not finite, say); a search records it and continues."""


class DiskFull(Exception):
    """The disk was full in another process; the message is that process's."""


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, is a full disk or an exhausted quota."""
    while error is not None:
        if isinstance(error, DiskFull) or "disk is full" in str(error):  # sqlite's message
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


OUT_OF_MEMORY = ("out of memory", "allocate memory", "alloc_failed")
"""In messages of torch, the CPU and GPU allocators, cuBLAS and cuDNN, in lower case."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is exhausted memory, of a GPU or of the machine."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)


def size_text(count: float) -> str:
    """A number of bytes for people: 5_200_000 → "5.2 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "did you mean WORD?" if one of the known words is like it, else ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, at most 200 characters of it."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
