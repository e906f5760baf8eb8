"""Numbers and durations in a readable form."""

from __future__ import annotations


def number_of(number: int, thing: str) -> str:
    """ "1 face", "2 faces"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def count(value: float) -> str:
    """426608 → "0.427 M", 1029700000 → "1.030 G"."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.1 or letter == "k":
            return f"{value / factor:.3f} {letter}"
    raise AssertionError(value)


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
