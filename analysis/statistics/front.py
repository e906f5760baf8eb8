"""Completed trials in groups (front, dominated, baseline, best), and the costs to plot them by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.statistics.pareto import front_of
from trials.record import Cost, Status, TrialRecord, best_of

COSTS: dict[str, tuple[str, Callable[[Cost], float | None]]] = {
    # metric: (axis label, value of a cost)
    "macs": ("MACs at 640×640 (G, log scale)", lambda cost: cost.macs / 1e9),
    "latency_ms": ("latency at 640×640 (ms, log scale)", lambda cost: cost.latency_ms),
    "params": ("parameters (M, log scale)", lambda cost: cost.params / 1e6),
}


@dataclass(frozen=True)
class FrontData:
    """Completed trials in groups, and a caption that also says what is not shown."""

    front: list[TrialRecord]
    """Cheapest first."""
    dominated: list[TrialRecord]
    baseline: TrialRecord | None
    best: TrialRecord | None
    """Highest score."""
    caption: str


def front_data(records: Sequence[TrialRecord], metric: str = "macs") -> FrontData:
    """The groups to draw: the front in accuracy against `metric`. Only completed trials: others
    have no AP, or one at a lower budget. One that has learned nothing is neither on the front nor
    the best."""
    value = COSTS[metric][1]
    completed = [
        r
        for r in records
        if r.status is Status.COMPLETED and r.score is not None and value(r.cost) is not None
    ]
    front = front_of(completed, metric)
    on_front = {r.number for r in front}
    shown = {r.number for r in completed}
    hidden = Counter(r.status.value for r in records if r.number not in shown)
    return FrontData(
        front=front,
        dominated=[r for r in completed if r.number not in on_front],
        baseline=next((r for r in completed if r.number == 0), None),
        best=best_of(completed),
        caption=f"{len(completed)} completed trials, {len(front)} on the front"
        + (
            "; not shown: " + ", ".join(f"{n} {status}" for status, n in sorted(hidden.items()))
            if hidden
            else ""
        ),
    )


def name_of(record: TrialRecord) -> str:
    """A trial's short name, such as r017."""
    return f"r{record.number:03d}"


def ap_of(record: TrialRecord) -> dict[str, float]:
    """easy, medium and hard AP of an evaluated trial."""
    assert record.ap is not None
    return record.ap
