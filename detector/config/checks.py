"""Checks that the fields of several configuration classes share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detector.base.errors import ConfigError


def one_of(key: str, value, choices: Sequence) -> None:
    if value not in choices:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(map(str, choices))}")


def positive(key: str, value, most: float = math.inf) -> None:
    if not value > 0:
        raise ConfigError(f"{key}: {value} must be greater than 0")
    if value > most:
        raise ConfigError(f"{key}: {value} must be at most {most:,}")


def at_least(key: str, value, least: float) -> None:
    if not value >= least:
        raise ConfigError(f"{key}: {value} must be at least {least}")
