"""Trials as a table for the terminal, readable at every width."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

from trials.record import LEVELS, TrialRecord

NO_TERMINAL = 150
"""Width in characters where the output is not a terminal."""
INDENT = " " * 7


def print_table(
    title: str,
    names: Sequence[str],
    designs: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    first: str = "trial",
) -> None:
    """Print one row per trial: its name, the columns, and the design at the end of the row, or on a
    line of its own if the terminal is too narrow for that.

    Args:
        columns: heading → one text per trial.
        first: heading of the names.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else NO_TERMINAL
    cells = [[heading, *values] for heading, values in columns.items()]
    longest = max(len(name) for name in (first, *names))
    widths = [max(map(len, column)) for column in cells]
    rows = ["  ".join(text.rjust(size) for text, size in zip(row, widths)) for row in zip(*cells)]
    rows = [f"{name:<{longest}}  {row}" for name, row in zip((first, *names), rows)]
    fits = len(rows[0]) + 2 + max(map(len, designs), default=0) <= width
    print(textwrap.fill(title, width))
    print(rows[0] + ("  design" if fits else ""))
    for row, design in zip(rows[1:], designs):
        print(f"{row}  {design}" if fits else f"{row}\n{_wrapped(design, width)}")


def _wrapped(design: str, width: int) -> str:
    return textwrap.fill(
        design,
        width,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_on_hyphens=False,  # they belong to the words of a design
    )


def ap_columns(records: Sequence[TrialRecord]) -> dict[str, list[str]]:
    """Easy, medium and hard AP."""
    return {level: [f"{(r.ap or {})[level]:.3f}" for r in records] for level in LEVELS}


def cost_columns(records: Sequence[TrialRecord]) -> dict[str, list[str]]:
    """MACs, parameters and, if any was measured, latency; each column in one unit."""
    columns = {
        "G MACs": [f"{r.cost.macs / 1e9:.3f}" for r in records],
        "k params": [f"{r.cost.params / 1e3:,.1f}" for r in records],
    }
    latencies = [r.cost.latency_ms for r in records]
    if any(latency is not None for latency in latencies):
        columns["ms"] = ["–" if latency is None else f"{latency:.1f}" for latency in latencies]
    return columns
