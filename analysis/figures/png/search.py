"""The course of a search as PNG files: progress, importances, ranks, learning curves, spending."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.figures.png.axes import STYLES, make_figure, save_png, set_title
from analysis.figures.style import (
    BASELINE,
    DOMINATED,
    FRONT,
    QUOTED,
    STUDIES,
    TEXT,
)
from analysis.statistics.correlation import Comparison
from analysis.statistics.front import name_of
from analysis.statistics.importance import Importances
from analysis.statistics.outliers import loss_label, loss_limit
from analysis.statistics.progress import Progress, Spending
from trials.record import TrialRecord


def progress_png(studies: Sequence[tuple[str, Progress, float | None]], path: Path) -> Path:
    """Best score by trials and by epochs, hypervolume by epochs.

    Args:
        studies: name, progress, and the baseline's score if there is one.
    """
    figure, axes = make_figure(11, 3.8, columns=3)
    for index, (name, progress, baseline) in enumerate(studies):
        color, dash = STUDIES[index % len(STUDIES)], STYLES[index % len(STYLES)][0]
        for part, x, y in zip(
            axes,
            (progress.trials, progress.epochs, progress.epochs),
            (progress.best, progress.best, progress.hypervolume),
        ):
            part.step(
                x,
                y,
                where="post",
                color=color,
                linestyle=dash,
                label=name,
                marker="o" if len(x) < 20 else None,
                markersize=3,
            )
            if baseline is not None and part is not axes[2]:
                part.axhline(
                    baseline,
                    color=color if len(studies) > 1 else BASELINE,
                    linewidth=0.8,
                    linestyle=(0, (1, 3)),
                    label=f"{name}: baseline",
                )
    for part, xlabel, ylabel in zip(
        axes,
        ("trials started", "epochs trained", "epochs trained"),
        ("best score so far", "best score so far", "hypervolume so far"),
    ):
        part.set_xlabel(xlabel)
        part.set_ylabel(ylabel)
        part.set_xlim(left=0)
    axes[0].legend(fontsize=7, loc="lower right")
    set_title(axes[0], "progress of the search, at each completed trial")
    return save_png(figure, path)


def importances_png(importances: Importances, path: Path, *, title: str, most: int = 12) -> Path:
    """The most important features, each with its interval."""
    rows = importances.features[:most][::-1]
    figure, axes = make_figure(7.5, 1.4 + 0.28 * len(rows))
    values = np.array([row.value for row in rows])
    spread = np.array([[r.value - r.low for r in rows], [r.high - r.value for r in rows]])
    axes.barh(
        [row.feature for row in rows],
        values,
        color=FRONT,
        height=0.6,
        xerr=spread.clip(0),
        error_kw={"ecolor": TEXT, "elinewidth": 1.1, "capsize": 3},
    )
    axes.axvline(0, color=TEXT, linewidth=0.8)
    axes.set_xlabel(
        "share of the variance of accuracy at its cost lost by shuffling\n"
        "(bar: mean over 12 forests; whisker: middle 80 %)"
    )
    set_title(
        axes, f"{title}: what matters for accuracy at a given cost\n{importances.reliability}"
    )
    return save_png(figure, path)


def ranks_png(comparisons: Sequence[Comparison], path: Path, *, title: str) -> Path:
    """Accuracy at each budget against the next one, a dot for each design that has both."""
    figure, axes = make_figure(4.6 * len(comparisons), 4.2, columns=len(comparisons))
    for part, one in zip(np.atleast_1d(axes), comparisons):
        part.scatter(
            one.x,
            one.y,
            s=24,
            color=FRONT,
            edgecolors="white",
            linewidths=0.5,
            alpha=0.8 if len(one.x) < 300 else 0.3,
        )
        if len(one.x):
            ends = [one.x.min(), one.x.max()]
            part.plot(ends, ends, color=QUOTED, linewidth=0.8, linestyle=":", label="no change")
            part.legend(fontsize=7, loc="lower right")
        part.set_xlabel(f"accuracy score at {one.low_budget}")
        part.set_ylabel(f"accuracy score at {one.high_budget}")
        tau = one.kendall
        set_title(
            part,
            f"{title}: {one.low_budget} → {one.high_budget}\nKendall's τ {tau.value:.2f} "
            f"({tau.low:.2f} to {tau.high:.2f}), {tau.pairs} designs",
        )
    return save_png(figure, path)


def curves_png(
    best: Sequence[TrialRecord], others: Sequence[TrialRecord], path: Path, *, title: str
) -> Path:
    """Loss and accuracy by epoch; `best` in colour, `others` faded behind them."""
    figure, axes = make_figure(11, 4.0, columns=2)
    for index, record in enumerate([*others, *best]):
        rank = index - len(others)
        style: dict[str, Any] = (
            {"color": DOMINATED, "alpha": 0.4, "linewidth": 0.7}
            if rank < 0
            else {
                "color": STUDIES[rank % len(STUDIES)],
                "linestyle": STYLES[rank % len(STYLES)][0],
                "label": f"{name_of(record)}, score {record.score:.3f}",
                "linewidth": 1.6,
            }
        )
        axes[0].plot(
            [e.epoch for e in record.epochs],
            [e.losses.get("total", np.nan) for e in record.epochs],
            **style,
        )
        evaluated = [e for e in record.epochs if e.ap is not None]
        axes[1].plot(
            [e.epoch for e in evaluated],
            [e.accuracy_score for e in evaluated],
            marker="o",
            markersize=3,
            **style,
        )
    limit, beyond = loss_limit([*others, *best])
    if limit is not None:
        axes[0].set_ylim(0.0, limit)
    for part, label in zip(axes, (loss_label(beyond), "accuracy score")):
        part.set_xlabel("epoch")
        part.xaxis.get_major_locator().set_params(integer=True)
        part.set_ylabel(label)
    figure.legend(*axes[1].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    set_title(axes[0], f"{title}: learning curves of the best; others faded")
    return save_png(figure, path)


def spending_png(rows: Sequence[Spending], path: Path, *, title: str) -> Path:
    """Epochs and minutes by outcome."""
    figure, axes = make_figure(10, 1.6 + 0.3 * len(rows), columns=2)
    names = [f"{row.outcome} ({row.trials})" for row in rows][::-1]
    columns: tuple[tuple[str, list[float]], ...] = (
        ("epochs", [r.epochs for r in rows]),
        ("minutes inside trials, summed over workers", [r.seconds / 60 for r in rows]),
    )
    for part, (label, values) in zip(axes, columns):
        bars = part.barh(names, values[::-1], color=FRONT, height=0.6)
        part.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        part.margins(x=0.15)
        part.set_xlabel(label)
    axes[1].set_yticklabels([])
    set_title(axes[0], f"{title}: epochs and time by outcome (trials in brackets)")
    return save_png(figure, path)
