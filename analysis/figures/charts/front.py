"""Interactive charts of fronts; hovering over a marker shows its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from analysis.figures.charts.layout import (
    DASHES,
    HOVERTEXT_ONLY,
    MARKERS,
    TEXT_ONLY,
    log_axis,
    make_figure,
)
from analysis.figures.published import PUBLISHED
from analysis.figures.style import (
    ACCURACY,
    BASELINE,
    BEST,
    DOMINATED,
    FRONT,
    QUOTED,
    RETRAINED,
    STUDIES,
    TEXT,
    dot_area,
    size_marks,
)
from analysis.statistics.front import COSTS, ap_of, front_data, name_of
from analysis.statistics.pareto import attainment
from analysis.statistics.sample import random_sample
from trials.names import describe
from trials.record import Cost, TrialRecord

MAX_DOMINATED = 3_000
LABEL_WIDTH = 0.05
"""Of the number of a trial beside its dot, as a share of the front's width."""


def front_chart(
    records: Sequence[TrialRecord],
    *,
    metric: str = "macs",
    quoted: bool = False,
    retrained: Sequence[tuple[TrialRecord, float]] = (),
):
    """Accuracy against cost of one study. Trials that have learned nothing are left out, since they
    would flatten the axis. A dot's customdata is the number of its trial.

    Args:
        quoted: also show published detectors, once their entry in the legend is clicked.
        retrained: trials and the accuracy scores of their retrains.
    """
    data, (label, value) = front_data(records, metric), COSTS[metric]
    figure = make_figure(label, ACCURACY, height=560)

    def dots(group: Sequence[TrialRecord], name: str, choices: bool = True, **marker) -> None:
        is_front = group is data.front
        figure.add_scatter(
            x=[value(r.cost) for r in group],
            y=[r.accuracy_score for r in group],
            name=name,
            mode="markers+lines+text" if is_front else "markers",
            text=_labels(group, value) if is_front else None,
            textposition="top left",
            textfont={"color": FRONT},
            hovertext=[hover(r, choices) for r in group],
            hovertemplate=HOVERTEXT_ONLY,
            customdata=[r.number for r in group],
            line={"shape": "hv", "color": FRONT, "width": 1.2},
            marker={
                "size": [_diameter(r.cost.params) for r in group],
                "line": {"color": "white", "width": 1},
            }
            | marker,
        )

    able = [r for r in data.dominated if r.why_nothing_learned() is None]
    sample = random_sample(able, MAX_DOMINATED)
    name = "dominated"
    if len(sample) < len(able):
        name += f" ({len(sample):,} of {len(able):,} drawn)"
    dots(sample, name, choices=len(sample) <= 300, color=DOMINATED, opacity=0.6)
    dots(data.front, "front, with trial numbers", color=FRONT)
    if data.best is not None:
        dots(
            [data.best],
            f"best score: trial {data.best.number}, {data.best.score:.3f}",
            size=22,
            symbol="circle-open",
            color=BEST,
            line={"color": BEST, "width": 2},
        )
    if data.baseline is not None and data.baseline.why_nothing_learned() is None:
        dots([data.baseline], "baseline", size=16, symbol="star", color=BASELINE)
    if retrained:
        figure.add_scatter(
            x=[value(r.cost) for r, _ in retrained],
            mode="markers",
            y=[accuracy for _, accuracy in retrained],
            name="retrained (hold-out, original size)",
            customdata=[r.number for r, _ in retrained],
            hovertemplate=TEXT_ONLY,
            text=[
                f"<b>{name_of(r)} retrained</b><br>accuracy {accuracy:.3f} on "
                f"the hold-out<br>proxy {r.accuracy_score or 0:.3f}"
                for r, accuracy in retrained
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
    _add_areas(figure, [r.cost.params for r in [*sample, *data.front]])
    log_axis(figure)
    return figure


def fronts_chart(studies: Sequence[tuple[str, Sequence[TrialRecord]]], *, metric: str = "macs"):
    """The fronts of several studies; of three or more, also what half of them attained."""
    label, value = COSTS[metric]
    figure = make_figure(label, ACCURACY, height=520)
    points: list[np.ndarray] = []
    for index, (name, records) in enumerate(studies):
        data, color = front_data(records, metric), STUDIES[index % len(STUDIES)]
        marker = MARKERS[index % len(MARKERS)]
        sample = data.dominated[: MAX_DOMINATED // len(studies)]
        figure.add_scatter(
            x=[value(r.cost) for r in sample],
            y=[r.accuracy_score for r in sample],
            mode="markers",
            showlegend=False,
            hoverinfo="skip",
            legendgroup=name,
            marker={"size": 5, "color": color, "opacity": 0.25, "symbol": marker},
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
            marker={"size": 8, "symbol": marker, "line": {"color": "white", "width": 1}},
        )
        costs = np.array([value(r.cost) for r in data.front], dtype=float)
        points.append(np.column_stack([-costs, np.array([r.accuracy_score for r in data.front])]))
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
    log_axis(figure)
    return figure


def hover(record: TrialRecord, choices: bool = True) -> str:
    """A completed trial's numbers as lines of HTML, with the sampler's `choices` if wanted."""
    lines = [
        f"<b>{name_of(record)}</b>" + (" (baseline)" if record.number == 0 else ""),
        describe(record.detector),
        f"score {record.score:.3f} (accuracy {record.accuracy_score:.3f}, "
        f"speed {record.speed_score:.3f})",
        ", ".join(f"{level} {ap:.3f}" for level, ap in ap_of(record).items()),
        f"{record.cost.params:,} parameters, {record.cost.macs / 1e9:.3f} G MACs",
    ]
    if record.cost.latency_ms is not None:
        lines.append(f"{record.cost.latency_ms:.1f} ms ({record.cost.machine})")
    if choices:
        lines += [
            f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in record.params.items()
        ]
    return "<br>".join(lines)


def _labels(front: Sequence[TrialRecord], value: Callable[[Cost], float | None]) -> list[str]:
    """The numbers of trials, empty where they would cover the one to their left."""
    if not front:
        return []
    places = np.log10(np.array([value(r.cost) for r in front], dtype=float))
    labels, free = [], -np.inf
    for record, place in zip(front, places):
        labels.append(str(record.number) if place >= free else "")
        if place >= free:
            free = place + LABEL_WIDTH * (places[-1] - places[0])
    return labels


def _diameter(params: float) -> float:
    """Of a trial's dot, in px."""
    return 2 * (dot_area(params) / math.pi) ** 0.5


def _add_areas(figure, params: Sequence[int]) -> None:
    """Entries of the legend that say what the areas of dots mean."""
    for mark in size_marks(params) if params else ():
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=f"{f'{mark / 1e6:g} M' if mark >= 1e6 else f'{mark / 1e3:g} k'} parameters",
            marker={"size": _diameter(mark), "color": DOMINATED},
        )


def _add_quoted(figure, value) -> None:
    figure.add_scatter(
        x=[value(one.cost) for one in PUBLISHED],
        y=[one.accuracy_score for one in PUBLISHED],
        name="published (click to show)",
        visible="legendonly",
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
        hovertemplate=HOVERTEXT_ONLY,
        marker={"symbol": "diamond-open", "size": 9, "color": QUOTED, "line": {"width": 1.5}},
    )
