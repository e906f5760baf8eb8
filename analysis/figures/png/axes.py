"""What all PNG files share: figure and axes by matplotlib, line styles and markers, saving."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from detector.base.files import write_bytes

STYLES = (("-", "o"), ("--", "s"), (":", "D"), ("-.", "^"), ("-", "v"), ("--", "P"))


def make_figure(width: float, height: float, columns: int = 1, rows: int = 1):
    """A matplotlib figure of width × height inches, and its axes (an array if several)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns)
    for part in np.ravel(axes):
        part.grid(True, which="both", linewidth=0.3, alpha=0.5)
        part.set_axisbelow(True)
    return figure, axes


def log_axis(axes) -> None:
    """A logarithmic x axis, labelled with plain numbers at 1, 2 and 5 of each decade."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")


def set_title(axes, text: str) -> None:
    axes.set_title(text, fontsize=10 if "\n" not in text else 9, loc="left")


def save_png(figure, path: Path) -> Path:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_bytes(path, picture.getvalue())
    return path
