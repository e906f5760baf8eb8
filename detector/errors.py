"""Errors that the user of a command can cause and mend."""


class UserError(Exception):
    """One line: what was wrong, where (file, key, line), the rule, the way out.

    Command lines print it without a traceback and exit with 2; a trial that
    meets one is recorded as failed.
    """


class ConfigError(UserError):
    """A configuration that breaks a rule, named as the user typed it."""


class TrainingError(Exception):
    """Training cannot go on (a loss that is not finite, say); a search records it and goes on."""
