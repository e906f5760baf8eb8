"""The competition's score: speed_score + 2 × accuracy_score, each in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detector.base.errors import ConfigError
from detector.base.struct import Struct
from trials.record import Cost

# Cost at which the speed score is 1 and at which it is 0, for each metric.
ANCHORS: dict[str, tuple[float, float]] = {
    "macs": (0.1e9, 100e9),
    "latency_ms": (2.0, 2_000.0),
    "params": (0.05e6, 45e6),
}


@dataclass(frozen=True, kw_only=True)
class Objective(Struct):
    """How accuracy and cost are combined into one score."""

    metric: str = "macs"
    """The cost that the speed score measures: macs (at 640×640), latency_ms or params."""
    best: float | None = None
    """Cost at and below which the speed score is 1; None means the metric's default (ANCHORS)."""
    worst: float | None = None
    """Cost at and above which the speed score is 0; in between it is linear in the logarithm of the
    cost. None means the metric's default (ANCHORS)."""

    def __post_init__(self):
        if self.metric not in ANCHORS:
            raise ConfigError(
                f"objective.metric: {self.metric!r} is not one of {', '.join(ANCHORS)}"
            )
        for key, default in zip(("best", "worst"), ANCHORS[self.metric]):
            if getattr(self, key) is None:
                object.__setattr__(self, key, default)
        best, worst = self.anchors
        if not 0 < best < worst:
            raise ConfigError(
                f"objective.best: {best:g} must be above 0 and below worst, "
                f"{worst:g}: lower cost is better"
            )

    @property
    def anchors(self) -> tuple[float, float]:
        """`best` and `worst`, which are never None once constructed."""
        assert self.best is not None and self.worst is not None
        return self.best, self.worst

    def speed_score(self, cost: Cost) -> float:
        """In [0, 1]; with the default anchors, halving the MACs adds 0.1.

        Raises:
            ValueError: the metric was not measured.
        """
        if not self.measured(cost):
            raise ValueError(f"{self.metric} was not measured")
        best, worst = self.anchors
        position = math.log(getattr(cost, self.metric) / best) / math.log(worst / best)
        return min(max(1.0 - position, 0.0), 1.0)

    def measured(self, cost: Cost) -> bool:
        """Whether the metric of a cost was measured."""
        return getattr(cost, self.metric) is not None
