"""Errors that the user of a command can cause and mend."""

import errno


class UserError(Exception):
    """One line: what was wrong, where (file, key, line), the rule, the way out.

    Command lines print it without a traceback and exit with 2; a trial that
    meets one is recorded as failed.
    """


class ConfigError(UserError):
    """A configuration that breaks a rule, named as the user typed it."""


class TrainingError(Exception):
    """Training cannot go on (a loss that is not finite, say); a search records it and goes on."""


class DiskFull(Exception):
    """Another process met a full disk; its message is what it said."""


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, tells of a full disk or a quota used up."""
    while error is not None:
        if isinstance(error, DiskFull) or "disk is full" in str(error):  # as sqlite words it
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


OUT_OF_MEMORY = ("out of memory", "allocate memory", "alloc_failed")
"""What torch, the allocators of CPU and GPU, cuBLAS and cuDNN say, in lower case."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error tells that the memory of a GPU or of the machine was used up."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)


def size_text(count: float) -> str:
    """Bytes as messages tell them: 5_200_000 → "5.2 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
