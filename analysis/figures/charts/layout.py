"""What all charts share: the figure by plotly, its template, line styles and markers."""

from __future__ import annotations

from typing import Any

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
TEMPLATE: dict[str, Any] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 64, "r": 16, "t": 24, "b": 56},
    "height": 460,
    "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
}
TEXT_ONLY = "%{text}<extra></extra>"
HOVERTEXT_ONLY = "%{hovertext}<extra></extra>"


def log_axis(figure) -> None:
    """A logarithmic x axis, labelled with plain numbers: 1, 2 and 5 of each decade, and more where
    the visible values span less than one."""
    shown = [
        float(x)
        for trace in figure.data
        if trace.visible != "legendonly"
        for x in (trace.x if trace.x is not None else ())
        if x is not None and x > 0
    ]
    narrow = bool(shown) and max(shown) < 10 * min(shown)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if narrow else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(-4, 5) for step in steps]
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{v:g}" for v in ticks])


def make_figure(x: str | None, y: str | None, height: int):
    """An empty plotly figure with axis titles, `height` px high."""
    from plotly.graph_objects import Figure

    figure = Figure()
    figure.update_layout(**TEMPLATE | {"height": height}, xaxis_title=x, yaxis_title=y)
    return figure
