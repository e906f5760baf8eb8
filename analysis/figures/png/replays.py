"""Searches replayed on a table, as a PNG file: score and hypervolume of each sampler by epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from analysis.figures.png.axes import STYLES, make_figure, save_png, set_title
from analysis.figures.style import QUOTED, STUDIES
from analysis.statistics.replays import Band

Curves = Mapping[str, tuple[Band, Band]]
"""Sampler → best score and hypervolume, medians of its runs on the grid of epochs."""


def replay_png(
    grid: np.ndarray,
    columns: Sequence[tuple[str, Curves]],
    path: Path,
    *,
    goals: Mapping[str, float],
    title: str,
) -> Path:
    """Best score and hypervolume against epochs spent; a column for each scheduler.

    Args:
        grid: float [G], epochs spent.
        columns: title of the scheduler, and its curves.
        goals: label → score, drawn as lines.
    """
    figure, axes = make_figure(4.6 * len(columns), 7.4, columns=len(columns), rows=2)
    axes = np.reshape(axes, (2, len(columns)))
    samplers = list(dict.fromkeys(name for _, curves in columns for name in curves))
    for column, (label, curves) in enumerate(columns):
        for name, measures in curves.items():
            index = samplers.index(name)
            color, dash = STUDIES[index % len(STUDIES)], STYLES[index % len(STYLES)][0]
            for part, measure in zip(axes[:, column], measures):
                known = np.isfinite(measure.value) & (measure.value > 0)
                part.plot(
                    grid[known],
                    measure.value[known],
                    color=color,
                    linestyle=dash,
                    linewidth=1.6,
                    label=name,
                )
                banded = known & np.isfinite(measure.low)
                part.fill_between(
                    grid[banded],
                    measure.low[banded],
                    measure.high[banded],
                    color=color,
                    alpha=0.13,
                    linewidth=0,
                )
        for index, (goal, score) in enumerate(goals.items()):
            axes[0, column].axhline(
                score,
                color=QUOTED,
                linewidth=0.9,
                linestyle=((0, (1, 2)), (0, (5, 3)))[index % 2],
                label=goal,
            )
        set_title(axes[0, column], f"{title}\n{label}" if column == 0 else label)
        axes[1, column].set_xlabel("epochs spent by all trials together")
    for row, ylabel in enumerate(
        ("best score of a completed trial", "hypervolume of the completed trials' front")
    ):
        axes[row, 0].set_ylabel(ylabel)
        shown = [
            value
            for _, curves in columns
            for measures in curves.values()
            for value in measures[row].value
            if np.isfinite(value) and value > 0
        ]
        low, high = np.quantile(shown, 0.08), max(shown)
        for part in axes[row]:
            part.set_ylim(low, high + 0.06 * (high - low))
            part.set_xlim(0, grid[-1])
    axes[0, -1].legend(fontsize=8, loc="lower right", framealpha=0.85)
    return save_png(figure, path)
