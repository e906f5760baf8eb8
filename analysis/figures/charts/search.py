"""Interactive charts of the course of a search; hovering over a marker shows its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.figures.charts.layout import DASHES, MARKERS, TEMPLATE, make_figure
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

RATES = ("lr", "weight_decay")
"""Last parts of the names of choices that spaces sample on a logarithmic scale."""


def progress_chart(studies: Sequence[tuple[str, Progress, float | None]]):
    """Best score by trials and by epochs, hypervolume by epochs; see `progress_png`."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 3, horizontal_spacing=0.08)
    figure.update_layout(**TEMPLATE | {"height": 400})
    for index, (name, progress, baseline) in enumerate(studies):
        color, dash = STUDIES[index % len(STUDIES)], DASHES[index % len(DASHES)]
        for column, x, y in (
            (1, progress.trials, progress.best),
            (2, progress.epochs, progress.best),
            (3, progress.epochs, progress.hypervolume),
        ):
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines+markers" if len(x) < 20 else "lines",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                row=1,
                col=column,
                line={"shape": "hv", "color": color, "dash": dash},
            )
            if baseline is not None and column < 3 and len(x):
                figure.add_scatter(
                    x=[0, x[-1]],
                    y=[baseline] * 2,
                    mode="lines",
                    row=1,
                    col=column,
                    name=f"{name}: baseline",
                    legendgroup=name,
                    showlegend=column == 1,
                    hoverinfo="y",
                    line={
                        "color": BASELINE if len(studies) == 1 else color,
                        "dash": "dot",
                        "width": 1,
                    },
                )
    for column, xlabel, ylabel in (
        (1, "trials started", "best score so far"),
        (2, "epochs trained", "best score so far"),
        (3, "epochs trained", "hypervolume so far"),
    ):
        figure.update_xaxes(title=xlabel, rangemode="tozero", row=1, col=column)
        figure.update_yaxes(title=ylabel, row=1, col=column)
    return figure


def importances_chart(importances: Importances, most: int = 12):
    """The most important features with their intervals; see `importances_png`."""
    rows = importances.features[:most][::-1]
    figure = make_figure(
        "share of the variance of accuracy<br>at its cost lost by shuffling",
        None,
        height=140 + 26 * len(rows),
    )
    figure.add_bar(
        x=[row.value for row in rows],
        y=[row.feature for row in rows],
        orientation="h",
        marker={"color": FRONT},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        error_x={
            "type": "data",
            "symmetric": False,
            "color": TEXT,
            "thickness": 1.2,
            "array": [max(row.high - row.value, 0) for row in rows],
            "arrayminus": [max(row.value - row.low, 0) for row in rows],
        },
    )
    figure.update_yaxes(automargin=True)
    return figure


def parallel_chart(
    records: Sequence[TrialRecord], values: np.ndarray, names: Sequence[str], texts: Sequence[dict]
):
    """Parallel coordinates: a line for each completed trial through its choices, cost and accuracy,
    coloured by score.

    Args:
        values: float [N, D], NaN where a trial lacks the choice (drawn below the others).
        texts: for each column number → text, empty for numeric ones.
    """
    from plotly.graph_objects import Figure, Parcoords

    axes = []
    for column, name, labels in zip(values.T, names, texts):
        is_log = not labels and name.endswith(RATES) and np.nanmin(column) > 0
        if is_log:
            column = np.log10(column)
        lowest, highest = np.nanmin(column), np.nanmax(column)
        missing = lowest - 0.15 * (highest - lowest or 1.0)
        known = np.unique(column[~np.isnan(column)])
        if not labels and (
            len(known) > 8 or np.diff(known).min(initial=np.inf) < 0.06 * (highest - lowest)
        ):
            known = np.linspace(lowest, highest, 5)
        tick_labels = dict(labels) or {float(v): f"{10**v if is_log else v:.3g}" for v in known}
        if np.isnan(column).any():
            tick_labels = {missing: "–"} | tick_labels
        axes.append(
            {
                "label": name,
                "values": np.where(np.isnan(column), missing, column),
                "tickvals": list(tick_labels),
                "ticktext": list(tick_labels.values()),
            }
        )
    macs = np.log10([r.cost.macs / 1e9 for r in records])
    ticks = [
        v
        for v in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
        if macs.min() <= np.log10(v) <= macs.max()
    ]
    axes += [
        {
            "label": "G MACs",
            "values": macs,
            "tickvals": np.log10(ticks),
            "ticktext": [f"{v:g}" for v in ticks],
        },
        _score_axis("accuracy", [r.accuracy_score for r in records]),
        _score_axis("score", [r.score for r in records]),
    ]
    figure = Figure(
        Parcoords(
            dimensions=axes,
            labelangle=-25,
            labelside="top",
            line={
                "color": [r.score for r in records],
                "colorscale": "Cividis",
                "showscale": True,
                "colorbar": {"title": "score", "thickness": 12},
            },
        )
    )
    figure.update_layout(
        **TEMPLATE | {"height": 520, "margin": {"l": 110, "r": 60, "t": 110, "b": 30}}
    )
    return figure


def ranks_chart(comparison: Comparison):
    """Accuracy at a low and at a higher budget, a dot for each design that has both."""
    figure = make_figure(
        f"accuracy score at {comparison.low_budget}",
        f"accuracy score at {comparison.high_budget}",
        height=420,
    )
    figure.add_scatter(
        x=comparison.x,
        y=comparison.y,
        mode="markers",
        name="designs",
        text=[f"r{n:03d}" for n in comparison.numbers],
        hovertemplate="<b>%{text}</b>: %{x:.3f} → %{y:.3f}<extra></extra>",
        marker={
            "color": FRONT,
            "size": 8,
            "line": {"color": "white", "width": 1},
            "opacity": 0.8 if len(comparison.x) < 300 else 0.3,
        },
    )
    if len(comparison.x):
        ends = [comparison.x.min(), comparison.x.max()]
        figure.add_scatter(
            x=ends,
            y=ends,
            mode="lines",
            name="no change",
            hoverinfo="skip",
            line={"color": QUOTED, "dash": "dot", "width": 1},
        )
    return figure


def curves_chart(best: Sequence[TrialRecord], others: Sequence[TrialRecord]):
    """Loss and accuracy by epoch; see `curves_png`."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, horizontal_spacing=0.1)
    figure.update_layout(**TEMPLATE | {"height": 440})
    for index, record in enumerate([*others, *best]):
        rank = index - len(others)
        color = DOMINATED if rank < 0 else STUDIES[rank % len(STUDIES)]
        evaluated = [e for e in record.epochs if e.ap is not None]
        for column, x, y in (
            (1, [e.epoch for e in record.epochs], [e.losses.get("total") for e in record.epochs]),
            (2, [e.epoch for e in evaluated], [e.accuracy_score for e in evaluated]),
        ):
            figure.add_scatter(
                x=x,
                y=y,
                row=1,
                col=column,
                mode="lines+markers",
                legendgroup=str(record.number),
                name=name_of(record),
                showlegend=rank >= 0 and column == 1,
                opacity=0.4 if rank < 0 else 1.0,
                line={
                    "color": color,
                    "width": 1 if rank < 0 else 2,
                    "dash": "solid" if rank < 0 else DASHES[rank % len(DASHES)],
                },
                marker={"size": 4, "symbol": MARKERS[max(rank, 0) % len(MARKERS)]},
                hovertemplate=f"{name_of(record)}: %{{y:.3f}} at epoch %{{x}}<extra></extra>",
            )
    limit, beyond = loss_limit([*others, *best])
    for column, label in ((1, loss_label(beyond)), (2, "accuracy score")):
        figure.update_xaxes(title="epoch", row=1, col=column)
        figure.update_yaxes(title=label, row=1, col=column)
    if limit is not None:
        figure.update_yaxes(range=[0.0, limit], row=1, col=1)
    return figure


def spending_chart(rows: Sequence[Spending]):
    """Epochs and minutes by outcome."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, horizontal_spacing=0.06, shared_yaxes=True)
    figure.update_layout(**TEMPLATE | {"height": 140 + 30 * len(rows), "showlegend": False})
    names = [f"{row.outcome} ({row.trials:,})" for row in rows][::-1]
    for column, values, label in (
        (1, [r.epochs for r in rows], "epochs"),
        (2, [r.seconds / 60 for r in rows], "minutes inside trials, summed over workers"),
    ):
        figure.add_bar(
            x=values[::-1],
            y=names,
            orientation="h",
            marker={"color": FRONT},
            row=1,
            col=column,
            texttemplate="%{x:,.0f}",
            textposition="auto",
            hovertemplate="%{y}: %{x:,.1f}<extra></extra>",
        )
        figure.update_xaxes(title=label, row=1, col=column)
    figure.update_yaxes(automargin=True)
    return figure


def _score_axis(label: str, values: Sequence[float | None]) -> dict:
    """An axis of parallel coordinates with five ticks."""
    numbers = np.array(values, dtype=float)
    ticks = np.linspace(numbers.min(), numbers.max(), 5)
    return {
        "label": label,
        "values": numbers,
        "tickvals": ticks,
        "ticktext": [f"{v:.2f}" for v in ticks],
    }
