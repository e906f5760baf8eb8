"""The score: the competition's speed_score + 2 × accuracy_score, or an expression of the user's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from detector.base.errors import ConfigError
from detector.base.struct import Struct
from trials.expression import COSTS, read_expression
from trials.growth import Growth
from trials.record import (
    ACCURACY_WEIGHT,
    Cost,
    TrialRecord,
    accuracies,
    combined_score,
    expression_score,
)

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
    score: str | None = None
    """An expression such as 2 * accuracy + 1 - log10(macs / 1e8) / 3, of accuracy (the mean of
    easy, medium and hard), easy, medium, hard (AP in [0, 1]), macs, params and latency_ms, with
    + - * / **, log, log2, log10, exp, sqrt, min, max, abs, clip, and `a if macs < 1e9 else b`. None
    means speed_score + 2 × accuracy. The front is that of accuracy and the metric in any case."""
    growth: Growth | None = None
    """What accuracy gains from a trial to a full training: trials are then ranked by the score that
    is expected of a full training. None: by the one that they reach."""

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
        if self.score is not None:
            try:
                read_expression(self.score).check()
            except ConfigError as error:
                raise ConfigError(f"objective.score: {error}") from error

    def to_dict(self) -> dict:
        """As `Struct.to_dict`; without `score` and `growth` where there are none, as in older
        studies."""
        plain = super().to_dict()
        for key in ("score", "growth"):
            if plain[key] is None:
                del plain[key]
        return plain

    def __str__(self) -> str:
        """The formula, for people."""
        if self.score is None:
            return f"speed_score + 2 × accuracy_score, speed by {self.metric}"
        return " ".join(self.score.split())

    @property
    def described(self) -> str:
        """The formula, and what the scores of trials are."""
        return "; ".join(filter(None, (str(self), self.growth_note)))

    @property
    def growth_note(self) -> str | None:
        """What the scores of trials are, if not those that they reached."""
        if self.growth is None:
            return None
        return (
            "scores are those expected of full trainings: log-odds of accuracy "
            f"{self.growth.base:+g} at 0.1 G MACs, {self.growth.per_decade:+g} more for each "
            "factor of ten (objective.growth)"
        )

    @property
    def without_growth(self) -> Objective:
        """The objective of what was trained in full."""
        return replace(self, growth=None)

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

    @property
    def uses_latency(self) -> bool:
        """Whether speed score or score need the latency, which has to be measured."""
        names = () if self.score is None else read_expression(self.score).names
        return self.metric == "latency_ms" or "latency_ms" in names

    def unmeasured(self, cost: Cost) -> str | None:
        """The quantity that is needed and was not measured; None if there is none."""
        return "latency_ms" if self.uses_latency and cost.latency_ms is None else None

    def score_of(self, accuracy: Mapping[str, float] | float, cost: Cost) -> float:
        """The score of a design that was trained in full.

        Args:
            accuracy: AP by level; or the accuracy score alone, which then counts for each level.

        Raises:
            ValueError: a quantity that is needed was not measured.
        """
        if missing := self.unmeasured(cost):
            raise ValueError(f"{missing} was not measured")
        values = accuracies(accuracy)
        if self.score is not None:
            return float(expression_score(self.score, values, cost.numbers))
        return combined_score(values["accuracy"], self.speed_score(cost))

    def scores(self, accuracy, costs: Sequence[Cost]):
        """Scores of the trials of many designs, such as samplers predict: float [..., N].

        Args:
            accuracy: float [..., N], accuracy scores, each of which counts for every level.
            costs: of the N designs.
        """
        import numpy as np

        if self.growth is not None:
            accuracy = self.growth.expected(accuracy, np.array([cost.macs for cost in costs]))
        if self.score is None:
            return combined_score(accuracy, np.array([self.speed_score(cost) for cost in costs]))
        numbers = [cost.numbers for cost in costs]
        columns = {name: np.array([row[name] for row in numbers]) for name in COSTS}
        return expression_score(self.score, accuracies(np.asarray(accuracy)), columns)

    def normal_scores(self, mean, std, costs: Sequence[Cost]):
        """Scores of designs whose accuracies are normal variables, to first order.

        Args:
            mean, std: of the accuracy scores, float [N] each.
            costs: of the N designs.

        Returns:
            Mean and standard deviation of the scores, float [N] each.
        """
        if self.score is None and self.growth is None:
            return self.scores(mean, costs), ACCURACY_WEIGHT * std
        import numpy as np

        low = np.clip(mean - std, 0.01, 0.99)  # where expressions such as log(accuracy) are defined
        high = np.clip(mean + std, low + 0.01, 1.0)
        slope = (self.scores(high, costs) - self.scores(low, costs)) / (high - low)
        return self.scores(np.clip(mean, 0.01, 1.0), costs), np.maximum(np.abs(slope) * std, 1e-9)

    def applied_to(self, record: TrialRecord) -> TrialRecord:
        """The record, scored by this objective; an unmeasured metric has speed score 0."""
        speed = self.speed_score(record.cost) if self.measured(record.cost) else 0.0
        return record.evolve(speed_score=speed, formula=self.score, growth=self.growth)
