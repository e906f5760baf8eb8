"""What pictures of a front show, however they are drawn: groups, labels, colours, sizes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.pareto import dominated
from trials.names import describe
from trials.record import Status, TrialRecord

# Okabe and Ito's colours, told apart by everyone; marks differ in shape, too.
FRONT, DOMINATED, BASELINE, BEST = "#0072B2", "#B8B8B8", "#D55E00", "#009E73"
QUOTED, RETRAINED, TEXT = "#606060", "#CC79A7", "#303030"
STUDIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
COSTS = {  # metric: (axis label, value of a cost)
    "macs": ("MACs at 640×640 (G, log scale)", lambda cost: cost.macs / 1e9),
    "latency_ms": ("latency at 640×640 (ms, log scale)", lambda cost: cost.latency_ms),
    "params": ("parameters (M, log scale)", lambda cost: cost.params / 1e6),
}
ACCURACY = "accuracy score: mean AP of easy, medium and hard"


@dataclass(frozen=True)
class FrontData:
    """Completed trials in four groups, and a line that says what is not shown."""

    front: list[TrialRecord]
    """Cheapest first."""
    dominated: list[TrialRecord]
    baseline: TrialRecord | None
    best: TrialRecord | None
    """Highest score."""
    caption: str


def front_data(records: Sequence[TrialRecord], metric: str = "macs") -> FrontData:
    """The groups to draw: the front in accuracy against `metric`. Only completed trials: others
    have an AP at a lower budget or none."""
    value = COSTS[metric][1]
    completed = [
        r
        for r in records
        if r.status is Status.COMPLETED and r.score is not None and value(r.cost) is not None
    ]
    beaten = dominated(
        np.array([(-value(r.cost), r.accuracy_score) for r in completed]).reshape(-1, 2)
    )
    front = sorted((r for r, b in zip(completed, beaten) if not b), key=lambda r: value(r.cost))
    shown = {r.number for r in completed}
    unshown = Counter(r.status.value for r in records if r.number not in shown)
    return FrontData(
        front=front,
        dominated=[r for r, b in zip(completed, beaten) if b],
        baseline=next((r for r in completed if r.number == 0), None),
        best=max(completed, key=lambda r: (r.score, -r.number), default=None),
        caption=f"{len(completed)} completed trials, {len(front)} on the front"
        + (
            "; not shown: " + ", ".join(f"{n} {status}" for status, n in sorted(unshown.items()))
            if unshown
            else ""
        ),
    )


def name_of(record: TrialRecord) -> str:
    """A trial's short name, such as r017."""
    return f"r{record.number:03d}"


def hover(record: TrialRecord, choices: bool = True) -> str:
    """A completed trial's numbers, in lines of HTML; with the sampler's `choices`, each a line."""
    lines = [
        f"<b>{name_of(record)}</b>" + (" (baseline)" if record.number == 0 else ""),
        describe(record.detector),
        f"score {record.score:.3f} (accuracy {record.accuracy_score:.3f}, "
        f"speed {record.speed_score:.3f})",
        ", ".join(f"{level} {ap:.3f}" for level, ap in record.ap.items()),
        f"{record.cost.params:,} parameters, {record.cost.macs / 1e9:.3f} G MACs",
    ]
    if record.cost.latency_ms is not None:
        lines.append(f"{record.cost.latency_ms:.1f} ms ({record.cost.machine})")
    return "<br>".join(
        lines
        + (
            [
                f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
                for name, value in record.params.items()
            ]
            if choices
            else []
        )
    )


def dot_area(params: int) -> float:
    """Area of a trial's dot in points²: 20 for none, 20 more for each tenfold above 10 k."""
    return 20 + 20 * max(math.log10(max(params, 1) / 1e4), 0.0)


def size_marks(params: Sequence[int]) -> list[float]:
    """Powers of ten from the smallest to the largest model, for the legend; at most three."""
    low, high = math.floor(math.log10(min(params))), math.ceil(math.log10(max(params)))
    marks = [10.0**power for power in range(low, high + 1)]
    return marks if len(marks) <= 3 else [marks[0], marks[len(marks) // 2], marks[-1]]
