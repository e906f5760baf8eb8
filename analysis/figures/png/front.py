"""Fronts as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.figures.png.axes import STYLES, log_axis, make_figure, save_png, set_title
from analysis.figures.published import PUBLISHED, QUOTED_NOTE
from analysis.figures.style import (
    ACCURACY,
    BASELINE,
    BEST,
    DOMINATED,
    FRONT,
    QUOTED,
    STUDIES,
    TEXT,
    dot_area,
    size_marks,
)
from analysis.statistics.front import COSTS, front_data, name_of
from trials.record import TrialRecord, rank

LABEL_ROOM = (0.07, 0.045)
"""Share of the axes that a name takes up along x and y; a dot closer to a better one gets none."""


def front_png(
    records: Sequence[TrialRecord],
    path: Path,
    *,
    title: str,
    metric: str = "macs",
    quoted: bool = False,
) -> Path:
    """Draw accuracy against cost into `path`; returns it. A dot's area shows the parameters.

    Args:
        quoted: also show published detectors.
    """
    data, (label, value) = front_data(records, metric), COSTS[metric]
    figure, axes = make_figure(9.0 if quoted else 7.5, 5.5 if quoted else 5.0)

    def dots(group: Sequence[TrialRecord], **style) -> None:
        axes.scatter(
            [value(r.cost) for r in group],
            [r.accuracy_score for r in group],
            s=[dot_area(r.cost.params) for r in group],
            linewidths=0.6,
            **style,
        )

    dots(data.dominated, color=DOMINATED, alpha=0.55, edgecolors="white", label="dominated")
    axes.step(
        [value(r.cost) for r in data.front],
        [r.accuracy_score for r in data.front],
        where="post",
        color=FRONT,
        linewidth=1.2,
        alpha=0.7,
    )
    dots(data.front, color=FRONT, edgecolors="white", label="front", zorder=3)
    for record in _labelled(data.front, [*data.front, *data.dominated], value):
        axes.annotate(
            name_of(record),
            (value(record.cost), record.accuracy_score),
            fontsize=7,
            xytext=(-6, 7),
            textcoords="offset points",
            ha="right",
            color=TEXT,
        )
    if data.baseline is not None:
        axes.scatter(
            [value(data.baseline.cost)],
            [data.baseline.accuracy_score],
            marker="*",
            s=170,
            color=BASELINE,
            edgecolors="white",
            linewidths=0.8,
            label="baseline",
            zorder=5,
        )
    if data.best is not None:
        axes.scatter(
            [value(data.best.cost)],
            [data.best.accuracy_score],
            marker="o",
            s=260,
            facecolors="none",
            edgecolors=BEST,
            linewidths=1.8,
            label=f"best score: {data.best.score:.3f}",
            zorder=4,
        )
        log_axis(axes)
        for params in size_marks([r.cost.params for r in data.front + data.dominated]):
            axes.scatter(
                [],
                [],
                s=dot_area(params),
                color="white",
                edgecolors="#606060",
                linewidths=0.6,
                label=f"{params / 1e6:g} M parameters",
            )
    if quoted and metric != "latency_ms":
        _quoted(axes, value)
    if quoted:  # markers are everywhere
        figure.legend(fontsize=8, loc="outside right upper")
    elif data.best is not None:
        axes.legend(fontsize=8, loc="best", framealpha=0.85)
    axes.set_xlabel(label)
    axes.set_ylabel(ACCURACY)
    set_title(axes, f"{title}\n{data.caption}" + (f"\n{QUOTED_NOTE}" if quoted else ""))
    return save_png(figure, path)


def fronts_png(
    studies: Sequence[tuple[str, Sequence[TrialRecord]]], path: Path, *, metric: str = "macs"
) -> Path:
    """Draw the fronts of several studies, each in its own colour, dash and marker."""
    label, value = COSTS[metric]
    figure, axes = make_figure(7.5, 5.0)
    for index, (name, records) in enumerate(studies):
        data, color = front_data(records, metric), STUDIES[index % len(STUDIES)]
        dash, marker = STYLES[index % len(STYLES)]
        axes.scatter(
            [value(r.cost) for r in data.dominated],
            [r.accuracy_score for r in data.dominated],
            s=14,
            color=color,
            marker=marker,
            alpha=0.25,
            linewidths=0,
        )
        axes.step(
            [value(r.cost) for r in data.front],
            [r.accuracy_score for r in data.front],
            where="post",
            color=color,
            linestyle=dash,
            marker=marker,
            markersize=5,
            markeredgecolor="white",
            label=name,
        )
    log_axis(axes)
    axes.legend(fontsize=8, loc="best", framealpha=0.85)
    axes.set_xlabel(label)
    axes.set_ylabel(ACCURACY)
    set_title(axes, "fronts: what each study attained at a cost; dominated trials faded")
    return save_png(figure, path)


def _labelled(
    front: Sequence[TrialRecord], shown: Sequence[TrialRecord], value
) -> list[TrialRecord]:
    """Those of the front whose names do not overlap, best score first."""

    def position(record: TrialRecord) -> np.ndarray:
        return np.array([np.log(value(record.cost)), record.accuracy_score])

    labelled: list[TrialRecord] = []
    span = np.maximum(np.ptp([position(r) for r in shown], axis=0), 1e-9) if shown else 1.0
    for record in sorted(front, key=rank):
        gaps = [np.abs(position(record) - position(other)) / span for other in labelled]
        if all((gap > LABEL_ROOM).any() for gap in gaps):
            labelled.append(record)
    return labelled


def _quoted(axes, value) -> None:
    for one in PUBLISHED:
        x, y = value(one.cost), one.accuracy_score
        axes.scatter(
            [x],
            [y],
            marker="D",
            s=26,
            facecolors="white",
            edgecolors=QUOTED,
            linewidths=1.1,
            label="quoted (see title)" if one is PUBLISHED[0] else None,
        )
        vertical, horizontal = one.label.split()
        axes.annotate(
            one.short,
            (x, y),
            fontsize=6.5,
            color=QUOTED,
            textcoords="offset points",
            xytext=(
                {"left": -5, "center": 0, "right": 5}[horizontal],
                {"top": 3, "middle": 0, "bottom": -3}[vertical],
            ),
            ha={"left": "right", "center": "center", "right": "left"}[horizontal],
            va={"top": "bottom", "middle": "center", "bottom": "top"}[vertical],
        )
    axes.set_ylim(top=1.0)
