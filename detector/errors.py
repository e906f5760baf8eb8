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
