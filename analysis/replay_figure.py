"""The picture of replays on a table: how soon each sampler finds how much. Numbers come from
elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from analysis.figures import STYLES, _figure, _saved, _titled
from analysis.front import QUOTED, STUDIES
from analysis.replays import Estimate

Curves = Mapping[str, tuple[Estimate, Estimate]]
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
        columns: the scheduler's words, and its curves.
        goals: words → score, drawn as lines.
    """
    figure, axes = _figure(4.6 * len(columns), 7.4, columns=len(columns), rows=2)
    axes = np.reshape(axes, (2, len(columns)))
    samplers = list(dict.fromkeys(name for _, curves in columns for name in curves))
    for column, (words, curves) in enumerate(columns):
        for name, measures in curves.items():
            place = samplers.index(name)
            color, dash = STUDIES[place % len(STUDIES)], STYLES[place % len(STYLES)][0]
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
        for place, (goal, score) in enumerate(goals.items()):
            axes[0, column].axhline(
                score,
                color=QUOTED,
                linewidth=0.9,
                linestyle=((0, (1, 2)), (0, (5, 3)))[place % 2],
                label=goal,
            )
        _titled(axes[0, column], f"{title}\n{words}" if column == 0 else words)
        axes[1, column].set_xlabel("epochs spent by all trials together")
    for row, label in enumerate(
        ("best score of a completed trial", "hypervolume of the completed trials' front")
    ):
        axes[row, 0].set_ylabel(label)
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
    return _saved(figure, path)
