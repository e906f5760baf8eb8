"""Pictures of a search as PNG files, by matplotlib. Numbers come from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.correlation import Comparison
from analysis.front import (
    ACCURACY,
    BASELINE,
    BEST,
    COSTS,
    DOMINATED,
    FRONT,
    QUOTED,
    STUDIES,
    TEXT,
    dot_area,
    front_data,
    name_of,
    size_marks,
)
from analysis.importance import Importances
from analysis.progress import Progress, Spending
from analysis.published import PUBLISHED, QUOTED_NOTE
from trials.record import TrialRecord

LABEL_ROOM = (0.07, 0.045)
"""Share of the axes that a name needs along x and y; a dot nearer to a better one has no name."""
STYLES = (("-", "o"), ("--", "s"), (":", "D"), ("-.", "^"), ("-", "v"), ("--", "P"))


def front_png(
    records: Sequence[TrialRecord],
    path: Path,
    *,
    title: str,
    metric: str = "macs",
    quoted: bool = False,
) -> Path:
    """Draw accuracy against cost into `path`; returns it. A dot's area tells the parameters.

    Args:
        quoted: published detectors, too.
    """
    data, (label, value) = front_data(records, metric), COSTS[metric]
    figure, axes = _figure(9.0 if quoted else 7.5, 5.5 if quoted else 5.0)

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
    for record in _spaced(data.front, [*data.front, *data.dominated], value):
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
        _log_axis(axes)
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
    if quoted:  # marks are everywhere
        figure.legend(fontsize=8, loc="outside right upper")
    elif data.best is not None:
        axes.legend(fontsize=8, loc="best", framealpha=0.85)
    axes.set_xlabel(label)
    axes.set_ylabel(ACCURACY)
    _titled(axes, f"{title}\n{data.caption}" + (f"\n{QUOTED_NOTE}" if quoted else ""))
    return _saved(figure, path)


def fronts_png(
    studies: Sequence[tuple[str, Sequence[TrialRecord]]], path: Path, *, metric: str = "macs"
) -> Path:
    """The fronts of several studies, each in its own colour, dash and mark."""
    label, value = COSTS[metric]
    figure, axes = _figure(7.5, 5.0)
    for index, (name, records) in enumerate(studies):
        data, color = front_data(records, metric), STUDIES[index % len(STUDIES)]
        dash, mark = STYLES[index % len(STYLES)]
        axes.scatter(
            [value(r.cost) for r in data.dominated],
            [r.accuracy_score for r in data.dominated],
            s=14,
            color=color,
            marker=mark,
            alpha=0.25,
            linewidths=0,
        )
        axes.step(
            [value(r.cost) for r in data.front],
            [r.accuracy_score for r in data.front],
            where="post",
            color=color,
            linestyle=dash,
            marker=mark,
            markersize=5,
            markeredgecolor="white",
            label=name,
        )
    _log_axis(axes)
    axes.legend(fontsize=8, loc="best", framealpha=0.85)
    axes.set_xlabel(label)
    axes.set_ylabel(ACCURACY)
    _titled(axes, "fronts: what each study attained at a cost; dominated trials pale")
    return _saved(figure, path)


def progress_png(studies: Sequence[tuple[str, Progress, float | None]], path: Path) -> Path:
    """Best score by trials and by epochs, hypervolume by epochs.

    Args:
        studies: name, course, and the baseline's score where there is one.
    """
    figure, axes = _figure(11, 3.8, columns=3)
    for index, (name, course, baseline) in enumerate(studies):
        color, dash = STUDIES[index % len(STUDIES)], STYLES[index % len(STYLES)][0]
        for part, x, y in zip(
            axes,
            (course.trials, course.epochs, course.epochs),
            (course.best, course.best, course.hypervolume),
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
    for part, x, y in zip(
        axes,
        ("trials begun", "epochs trained", "epochs trained"),
        ("best score so far", "best score so far", "hypervolume so far"),
    ):
        part.set_xlabel(x)
        part.set_ylabel(y)
        part.set_xlim(left=0)
    axes[0].legend(fontsize=7, loc="lower right")
    _titled(axes[0], "the course of the search, at each completed trial")
    return _saved(figure, path)


def importances_png(found: Importances, path: Path, *, title: str, most: int = 12) -> Path:
    """The most important features, each with its interval."""
    rows = found.features[:most][::-1]
    figure, axes = _figure(7.5, 1.4 + 0.28 * len(rows))
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
    _titled(axes, f"{title}: what matters for accuracy at a given cost\n{explained(found)}")
    return _saved(figure, path)


def explained(found: Importances) -> str:
    """How far importances can be trusted, in a line."""
    share = f"{100 * max(found.explained, 0):.0f} %"
    return (
        f"{found.trials} trials at epoch {found.epoch}; on trials they did not see the forests "
        + (
            f"explain {share} of it"
            if found.explained > 0.05
            else "explain next to nothing: take none of it for granted"
        )
    )


def ranks_png(found: Sequence[Comparison], path: Path, *, title: str) -> Path:
    """Each budget against the next one, a dot for each design that has both."""
    figure, axes = _figure(4.6 * len(found), 4.2, columns=len(found))
    for part, one in zip(np.atleast_1d(axes), found):
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
        part.set_xlabel(f"accuracy score at {one.cheap}")
        part.set_ylabel(f"accuracy score at {one.dear}")
        tau = one.kendall
        _titled(
            part,
            f"{title}: {one.cheap} → {one.dear}\nKendall's τ {tau.value:.2f} "
            f"({tau.low:.2f} to {tau.high:.2f}), {tau.pairs} designs",
        )
    return _saved(figure, path)


def curves_png(
    shown: Sequence[TrialRecord], pale: Sequence[TrialRecord], path: Path, *, title: str
) -> Path:
    """Loss and accuracy by epoch; `shown` in colour, `pale` behind them."""
    figure, axes = _figure(11, 4.0, columns=2)
    for index, record in enumerate([*pale, *shown]):
        rank = index - len(pale)
        style = (
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
        looked = [e for e in record.epochs if e.ap is not None]
        axes[1].plot(
            [e.epoch for e in looked],
            [e.accuracy_score for e in looked],
            marker="o",
            markersize=3,
            **style,
        )
    for part, label in zip(axes, ("training loss (sum of all terms)", "accuracy score")):
        part.set_xlabel("epoch")
        part.xaxis.get_major_locator().set_params(integer=True)
        part.set_ylabel(label)
    figure.legend(*axes[1].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    _titled(axes[0], f"{title}: learning curves of the best; others pale")
    return _saved(figure, path)


def spending_png(rows: Sequence[Spending], path: Path, *, title: str) -> Path:
    """Epochs and hours by outcome."""
    figure, axes = _figure(10, 1.6 + 0.3 * len(rows), columns=2)
    names = [f"{row.outcome} ({row.trials})" for row in rows][::-1]
    for part, values, label in zip(
        axes,
        ([r.epochs for r in rows], [r.seconds / 60 for r in rows]),
        ("epochs", "minutes inside trials, all workers together"),
    ):
        bars = part.barh(names, values[::-1], color=FRONT, height=0.6)
        part.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        part.margins(x=0.15)
        part.set_xlabel(label)
    axes[1].set_yticklabels([])
    _titled(axes[0], f"{title}: where the epochs and the time went (trials in brackets)")
    return _saved(figure, path)


def _spaced(front: Sequence[TrialRecord], shown: Sequence[TrialRecord], value) -> list[TrialRecord]:
    """Those of the front whose names do not cover each other, best score first."""

    def place(records: Sequence[TrialRecord]) -> np.ndarray:
        return np.array([(np.log(value(r.cost)), r.accuracy_score) for r in records])

    chosen: list[TrialRecord] = []
    span = np.maximum(np.ptp(place(shown), axis=0), 1e-9) if shown else 1.0
    for record in sorted(front, key=lambda r: -r.score):
        apart = [np.abs(place([record])[0] - place([other])[0]) / span for other in chosen]
        if all((gap > LABEL_ROOM).any() for gap in apart):
            chosen.append(record)
    return chosen


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


def _figure(width: float, height: float, columns: int = 1, rows: int = 1):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns)
    for part in np.ravel(axes):
        part.grid(True, which="both", linewidth=0.3, alpha=0.5)
        part.set_axisbelow(True)
    return figure, axes


def _log_axis(axes) -> None:
    """Plain numbers at the decades and at 2 and 5 of each."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")


def _titled(axes, text: str) -> None:
    axes.set_title(text, fontsize=10 if "\n" not in text else 9, loc="left")


def _saved(figure, path: Path) -> Path:
    figure.savefig(path, format="png")
    return path
