"""Interactive charts of a search, by plotly: pointing at a mark tells its numbers. Numbers come
from elsewhere."""

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
    RETRAINED,
    STUDIES,
    TEXT,
    dot_area,
    front_data,
    hover,
    name_of,
)
from analysis.importance import Importances
from analysis.pareto import attainment
from analysis.progress import Progress, Spending
from analysis.published import PUBLISHED
from trials.record import TrialRecord

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
MAX_DOMINATED = 3_000
TEMPLATE = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 64, "r": 16, "t": 24, "b": 56},
    "height": 460,
    "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
}
TEXT_ONLY = "%{text}<extra></extra>"


def front_chart(
    records: Sequence[TrialRecord],
    *,
    metric: str = "macs",
    quoted: bool = False,
    retrained: Sequence[tuple[TrialRecord, dict]] = (),
):
    """Accuracy against cost of one study.

    Args:
        quoted: published detectors, too, with buttons that take them away.
        retrained: a trial and the metrics of its retrain.
    """
    data, (label, value) = front_data(records, metric), COSTS[metric]
    figure = _figure(label, ACCURACY, height=560)

    def dots(
        group: Sequence[TrialRecord],
        name: str,
        mode: str = "markers",
        choices: bool = True,
        **marker,
    ) -> None:
        figure.add_scatter(
            x=[value(r.cost) for r in group],
            y=[r.accuracy_score for r in group],
            name=name,
            mode=mode,
            text=[hover(r, choices) for r in group],
            hovertemplate=TEXT_ONLY,
            line={"shape": "hv", "color": FRONT, "width": 1.2},
            marker={
                "size": [2 * (dot_area(r.cost.params) / 3.14) ** 0.5 for r in group],
                "line": {"color": "white", "width": 1},
            }
            | marker,
        )

    pale = data.dominated
    if len(pale) > MAX_DOMINATED:
        kept = np.random.default_rng(0).choice(len(pale), MAX_DOMINATED, replace=False)
        pale = [pale[i] for i in sorted(kept)]
    name = (
        "dominated"
        if len(pale) == len(data.dominated)
        else (f"dominated ({len(pale):,} of {len(data.dominated):,} drawn)")
    )
    dots(pale, name, choices=len(pale) <= 300, color=DOMINATED, opacity=0.6)
    dots(data.front, "front", "lines+markers", color=FRONT)
    if data.best is not None:
        dots(
            [data.best],
            f"best score: {data.best.score:.3f}",
            size=22,
            symbol="circle-open",
            color=BEST,
            line={"color": BEST, "width": 2},
        )
    if data.baseline is not None:
        dots([data.baseline], "baseline", size=16, symbol="star", color=BASELINE)
    if retrained:
        figure.add_scatter(
            x=[value(r.cost) for r, _ in retrained],
            mode="markers",
            y=[metrics["accuracy_score"] for _, metrics in retrained],
            name="retrained (hold-out, original size)",
            hovertemplate=TEXT_ONLY,
            text=[
                f"<b>{name_of(r)} retrained</b><br>accuracy {metrics['accuracy_score']:.3f} on "
                f"the hold-out<br>as a proxy {r.accuracy_score or 0:.3f}"
                for r, metrics in retrained
            ],
            marker={
                "symbol": "square",
                "size": 11,
                "color": RETRAINED,
                "line": {"color": "white", "width": 1},
            },
        )
    if quoted and metric != "latency_ms":
        _add_quoted(figure, value)
    _log_axis(figure)
    return figure


def _add_quoted(figure, value) -> None:
    figure.add_scatter(
        x=[value(one.cost) for one in PUBLISHED],
        y=[one.accuracy_score for one in PUBLISHED],
        name="quoted: published, WIDER val",
        mode="markers+text",
        text=[one.short for one in PUBLISHED],
        textposition=[one.label for one in PUBLISHED],
        textfont={"size": 10, "color": QUOTED},
        hovertext=[
            f"<b>{one.name}</b> (quoted)<br>easy, medium, hard "
            f"{' / '.join(f'{ap:.2f}' for ap in one.ap)} %<br>{one.params:,} parameters, "
            f"{one.cost.macs / 1e9:.3f} G MACs at 640×640"
            for one in PUBLISHED
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        marker={"symbol": "diamond-open", "size": 9, "color": QUOTED, "line": {"width": 1.5}},
    )
    shown = [True] * len(figure.data)
    figure.update_layout(
        margin={"b": 100},
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "x": 0,
                "xanchor": "left",
                "y": 0,
                "yanchor": "top",
                "pad": {"t": 52},
                "showactive": True,
                "font": {"size": 11},
                "buttons": [
                    {
                        "label": text,
                        "method": "update",
                        "args": [
                            {"visible": [*shown[:-1], visible]},
                            {"xaxis.autorange": True, "yaxis.autorange": True},
                        ],
                    }
                    for text, visible in (("with quoted", True), ("this study alone", False))
                ],
            }
        ],
    )


def fronts_chart(studies: Sequence[tuple[str, Sequence[TrialRecord]]], *, metric: str = "macs"):
    """The fronts of several studies; of three or more also what half of them attained."""
    label, value = COSTS[metric]
    figure = _figure(label, ACCURACY, height=520)
    points = []
    for index, (name, records) in enumerate(studies):
        data, color = front_data(records, metric), STUDIES[index % len(STUDIES)]
        mark = MARKS[index % len(MARKS)]
        pale = data.dominated[: MAX_DOMINATED // len(studies)]
        figure.add_scatter(
            x=[value(r.cost) for r in pale],
            y=[r.accuracy_score for r in pale],
            mode="markers",
            showlegend=False,
            hoverinfo="skip",
            legendgroup=name,
            marker={"size": 5, "color": color, "opacity": 0.25, "symbol": mark},
        )
        figure.add_scatter(
            x=[value(r.cost) for r in data.front],
            y=[r.accuracy_score for r in data.front],
            name=name,
            mode="lines+markers",
            legendgroup=name,
            hovertemplate=TEXT_ONLY,
            text=[f"{name}: {hover(r)}" for r in data.front],
            line={"shape": "hv", "color": color, "dash": DASHES[index % len(DASHES)]},
            marker={"size": 8, "symbol": mark, "line": {"color": "white", "width": 1}},
        )
        points.append(np.array([(-value(r.cost), r.accuracy_score) for r in data.front]))
    if len(points) > 2:
        costs = np.unique(np.concatenate([-p[:, 0] for p in points]))
        level = attainment(points, -costs, 0.5)
        figure.add_scatter(
            x=costs[level > -np.inf],
            y=level[level > -np.inf],
            mode="lines",
            name="attained by half of the studies",
            line={"shape": "hv", "color": TEXT, "width": 3},
        )
    _log_axis(figure)
    return figure


def progress_chart(studies: Sequence[tuple[str, Progress, float | None]]):
    """Best score by trials and by epochs, hypervolume by epochs; see `progress_png`."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 3, horizontal_spacing=0.08)
    figure.update_layout(**TEMPLATE | {"height": 400})
    for index, (name, course, baseline) in enumerate(studies):
        color, dash = STUDIES[index % len(STUDIES)], DASHES[index % len(DASHES)]
        for column, x, y in (
            (1, course.trials, course.best),
            (2, course.epochs, course.best),
            (3, course.epochs, course.hypervolume),
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
    for column, x, y in (
        (1, "trials begun", "best score so far"),
        (2, "epochs trained", "best score so far"),
        (3, "epochs trained", "hypervolume so far"),
    ):
        figure.update_xaxes(title=x, rangemode="tozero", row=1, col=column)
        figure.update_yaxes(title=y, row=1, col=column)
    return figure


def importances_chart(found: Importances, most: int = 12):
    """See `importances_png`."""
    rows = found.features[:most][::-1]
    figure = _figure(
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
    """One line a completed trial through its choices, cost and accuracy, coloured by score.

    Args:
        values: float [N, D], nan where a choice is not there (drawn below the others).
        texts: for each column the text of each number, empty where it is a plain one.
    """
    from plotly.graph_objects import Figure, Parcoords

    axes = []
    for column, name, labels in zip(values.T, names, texts):
        lowest, highest = np.nanmin(column), np.nanmax(column)
        missing = lowest - 0.15 * (highest - lowest or 1.0)
        known = np.unique(column[~np.isnan(column)])
        if not labels and (
            len(known) > 8 or np.diff(known).min(initial=np.inf) < 0.06 * (highest - lowest)
        ):
            known = np.linspace(lowest, highest, 5)
        ticks = dict(labels) or {float(v): f"{v:.3g}" for v in known}
        if np.isnan(column).any():
            ticks = {missing: "–"} | ticks
        axes.append(
            {
                "label": name,
                "values": np.where(np.isnan(column), missing, column),
                "tickvals": list(ticks),
                "ticktext": list(ticks.values()),
            }
        )
    macs = np.log10([r.cost.macs / 1e9 for r in records])
    marks = [
        v
        for v in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
        if macs.min() <= np.log10(v) <= macs.max()
    ]
    axes += [
        {
            "label": "G MACs",
            "values": macs,
            "tickvals": np.log10(marks),
            "ticktext": [f"{v:g}" for v in marks],
        },
        _spaced("accuracy", [r.accuracy_score for r in records]),
        _spaced("score", [r.score for r in records]),
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


def ranks_chart(one: Comparison):
    """One budget against a dearer one, a dot for each design that has both."""
    figure = _figure(f"accuracy score at {one.cheap}", f"accuracy score at {one.dear}", height=420)
    figure.add_scatter(
        x=one.x,
        y=one.y,
        mode="markers",
        name="designs",
        text=[f"r{n:03d}" for n in one.numbers],
        hovertemplate="<b>%{text}</b>: %{x:.3f} → %{y:.3f}<extra></extra>",
        marker={
            "color": FRONT,
            "size": 8,
            "line": {"color": "white", "width": 1},
            "opacity": 0.8 if len(one.x) < 300 else 0.3,
        },
    )
    if len(one.x):
        ends = [one.x.min(), one.x.max()]
        figure.add_scatter(
            x=ends,
            y=ends,
            mode="lines",
            name="no change",
            hoverinfo="skip",
            line={"color": QUOTED, "dash": "dot", "width": 1},
        )
    return figure


def curves_chart(shown: Sequence[TrialRecord], pale: Sequence[TrialRecord]):
    """See `curves_png`."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, horizontal_spacing=0.1)
    figure.update_layout(**TEMPLATE | {"height": 440})
    for index, record in enumerate([*pale, *shown]):
        rank = index - len(pale)
        color = DOMINATED if rank < 0 else STUDIES[rank % len(STUDIES)]
        looked = [e for e in record.epochs if e.ap is not None]
        for column, x, y in (
            (1, [e.epoch for e in record.epochs], [e.losses.get("total") for e in record.epochs]),
            (2, [e.epoch for e in looked], [e.accuracy_score for e in looked]),
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
                marker={"size": 4, "symbol": MARKS[max(rank, 0) % len(MARKS)]},
                hovertemplate=f"{name_of(record)}: %{{y:.3f}} at epoch %{{x}}<extra></extra>",
            )
    for column, label in ((1, "training loss (sum of all terms)"), (2, "accuracy score")):
        figure.update_xaxes(title="epoch", row=1, col=column)
        figure.update_yaxes(title=label, row=1, col=column)
    return figure


def spending_chart(rows: Sequence[Spending]):
    """Epochs and minutes by outcome."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, horizontal_spacing=0.06, shared_yaxes=True)
    figure.update_layout(**TEMPLATE | {"height": 140 + 30 * len(rows), "showlegend": False})
    names = [f"{row.outcome} ({row.trials:,})" for row in rows][::-1]
    for column, values, label in (
        (1, [r.epochs for r in rows], "epochs"),
        (2, [r.seconds / 60 for r in rows], "minutes inside trials, all workers together"),
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


def front_html(
    records: Sequence[TrialRecord], path: Path, *, title: str, metric: str = "macs"
) -> Path:
    """The front as a page of its own that needs no network."""
    figure = front_chart(records, metric=metric)
    caption = front_data(records, metric).caption.replace("; ", "<br>")
    figure.update_layout(
        title={"text": title, "subtitle": {"text": caption}, "x": 0.02},
        height=None,
        margin={"t": 150},
    )
    figure.write_html(path, include_plotlyjs=True)
    return path


def _spaced(label: str, values: Sequence[float]) -> dict:
    """An axis of parallel coordinates with five plain numbers along it."""
    ticks = np.linspace(min(values), max(values), 5)
    return {
        "label": label,
        "values": values,
        "tickvals": ticks,
        "ticktext": [f"{v:.2f}" for v in ticks],
    }


def _log_axis(figure) -> None:
    """Plain numbers at 1, 2 and 5 of each decade."""
    ticks = [step * 10.0**power for power in range(-4, 5) for step in (1, 2, 5)]
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{v:g}" for v in ticks])


def _figure(x: str | None, y: str | None, height: int):
    from plotly.graph_objects import Figure

    figure = Figure()
    figure.update_layout(**TEMPLATE | {"height": height}, xaxis_title=x, yaxis_title=y)
    return figure
