"""The front as a picture (PNG) and as a page (HTML). Colours are Okabe and Ito's, told apart by
everyone; marks differ in shape, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.pareto import front_of
from trials.record import Status, TrialRecord

FRONT, DOMINATED, BASELINE, BEST = "#0072B2", "#B8B8B8", "#D55E00", "#009E73"
COSTS = {  # metric: (axis label, value of a record)
    "macs": ("MACs at 640×640 (G, log scale)", lambda r: r.cost.macs / 1e9),
    "latency_ms": ("latency at 640×640 (ms, log scale)", lambda r: r.cost.latency_ms),
    "params": ("parameters (M, log scale)", lambda r: r.cost.params / 1e6),
}
ACCURACY = "accuracy score: mean AP of easy, medium and hard"


@dataclass(frozen=True)
class FrontData:
    """What both pictures show: completed trials in four groups, and a line that says what is not
    shown."""

    front: list[TrialRecord]
    """Cheapest first."""
    dominated: list[TrialRecord]
    baseline: TrialRecord | None
    best: TrialRecord | None
    """Highest score."""
    caption: str


def front_data(records: Sequence[TrialRecord], metric: str = "macs") -> FrontData:
    """The groups to draw. Only completed trials: others have an AP at a lower budget or none."""
    value = COSTS[metric][1]
    completed = [r for r in records if r.status is Status.COMPLETED and r.score is not None
                 and value(r) is not None]
    front = sorted(front_of(completed), key=value)
    on_front = {r.number for r in front}
    others = [r for r in completed if r.number not in on_front]
    unshown = len(records) - len(completed)
    return FrontData(
        front=front, dominated=others,
        baseline=next((r for r in completed if r.number == 0), None),
        best=max(completed, key=lambda r: (r.score, -r.number), default=None),
        caption=f"{len(completed)} completed trials, {len(front)} on the front"
                + (f"; {unshown} not trained in full, not shown" if unshown else ""))


def front_png(records: Sequence[TrialRecord], path: Path, *, title: str,
              metric: str = "macs") -> Path:
    """Draw accuracy against cost into `path`; returns it. A dot's area tells the parameters."""
    from matplotlib.figure import Figure

    data, (label, value) = front_data(records, metric), COSTS[metric]
    figure = Figure(figsize=(7.5, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()

    def dots(group: Sequence[TrialRecord], **style) -> None:
        axes.scatter([value(r) for r in group], [r.accuracy_score for r in group],
                     s=[dot_area(r.cost.params) for r in group], linewidths=0.6, **style)

    dots(data.dominated, color=DOMINATED, alpha=0.55, edgecolors="white", label="dominated")
    axes.step([value(r) for r in data.front], [r.accuracy_score for r in data.front],
              where="post", color=FRONT, linewidth=1.2, alpha=0.7)
    dots(data.front, color=FRONT, edgecolors="white", label="front", zorder=3)
    for record in data.front if len(data.front) <= 12 else ():
        axes.annotate(name_of(record), (value(record), record.accuracy_score), fontsize=7,
                      xytext=(6, -12), textcoords="offset points", color="#404040")
    if data.baseline is not None:
        axes.scatter([value(data.baseline)], [data.baseline.accuracy_score], marker="*", s=170,
                     color=BASELINE, edgecolors="white", linewidths=0.8, label="baseline", zorder=5)
    if data.best is not None:
        axes.scatter([value(data.best)], [data.best.accuracy_score], marker="o", s=260,
                     facecolors="none", edgecolors=BEST, linewidths=1.8,
                     label=f"best score: {data.best.score:.3f}", zorder=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(  # 2 and 5 of each decade
            lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        for params in size_marks([r.cost.params for r in data.front + data.dominated]):
            axes.scatter([], [], s=dot_area(params), color="white", edgecolors="#606060",
                         linewidths=0.6, label=f"{params / 1e6:g} M parameters")
        axes.legend(fontsize=8, loc="best", frameon=True, framealpha=0.85)
    axes.set_xlabel(label)
    axes.set_ylabel(ACCURACY)
    axes.grid(True, which="both", linewidth=0.3, alpha=0.5)
    axes.set_title(f"{title}\n{data.caption}", fontsize=10, loc="left")
    figure.savefig(path, format="png")
    return path


def front_html(records: Sequence[TrialRecord], path: Path, *, title: str,
               metric: str = "macs") -> Path:
    """The same as a page that needs no network: pointing at a dot tells its numbers."""
    from plotly.graph_objects import Figure

    data, (label, value) = front_data(records, metric), COSTS[metric]
    figure = Figure()

    def dots(group: Sequence[TrialRecord], name: str, mode: str = "markers", **marker) -> None:
        figure.add_scatter(
            x=[value(r) for r in group], y=[r.accuracy_score for r in group], name=name, mode=mode,
            text=[hover(r) for r in group], hovertemplate="%{text}<extra></extra>",
            line={"shape": "hv", "color": FRONT, "width": 1.2},
            marker={"size": [2 * (dot_area(r.cost.params) / 3.14) ** 0.5 for r in group],
                    "line": {"color": "white", "width": 1}} | marker)

    dots(data.dominated, "dominated", color=DOMINATED, opacity=0.6)
    dots(data.front, "front", "lines+markers", color=FRONT)
    if data.best is not None:
        dots([data.best], f"best score: {data.best.score:.3f}", size=22, symbol="circle-open",
             color=BEST, line={"color": BEST, "width": 2})
    if data.baseline is not None:
        dots([data.baseline], "baseline", size=16, symbol="star", color=BASELINE)
    figure.update_layout(title=f"{title}: {data.caption}", xaxis_title=label, yaxis_title=ACCURACY,
                         xaxis_type="log", template="plotly_white")
    figure.write_html(path, include_plotlyjs=True)
    return path


def name_of(record: TrialRecord) -> str:
    """A trial's short name, such as r017."""
    return f"r{record.number:03d}"


def hover(record: TrialRecord) -> str:
    """A completed trial's numbers, in lines of HTML."""
    lines = [f"<b>{name_of(record)}</b>" + (" (baseline)" if record.number == 0 else ""),
             f"score {record.score:.3f} (accuracy {record.accuracy_score:.3f}, "
             f"speed {record.speed_score:.3f})",
             ", ".join(f"{level} {ap:.3f}" for level, ap in record.ap.items()),
             f"{record.cost.params:,} parameters, {record.cost.macs / 1e9:.3f} G MACs"]
    return "<br>".join(lines + [f"{name}: {value}" for name, value in record.params.items()])


def dot_area(params: int) -> float:
    """Area of a trial's dot in points²: 20 for none, 20 more for each tenfold above 10 k."""
    return 20 + 20 * max(math.log10(max(params, 1) / 1e4), 0.0)


def size_marks(params: Sequence[int]) -> list[float]:
    """Powers of ten from the smallest to the largest model, for the legend; at most three."""
    low, high = math.floor(math.log10(min(params))), math.ceil(math.log10(max(params)))
    marks = [10.0**power for power in range(low, high + 1)]
    return marks if len(marks) <= 3 else [marks[0], marks[len(marks) // 2], marks[-1]]
