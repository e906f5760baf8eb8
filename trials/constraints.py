"""Caps on the cost of a design, checked before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

from detector.base.errors import ConfigError
from detector.base.struct import Struct
from trials.record import Cost

_UNITS = {"params": "parameters", "macs": "MACs at 640×640", "latency_ms": "ms at 640×640"}


@dataclass(frozen=True, kw_only=True)
class Constraints(Struct):
    max_params: int | None = 45_000_000
    """The competition's rule; None means no limit."""
    min_macs: int | None = None
    """Minimum number of multiply-accumulates at 640×640."""
    max_macs: int | None = None
    max_latency_ms: float | None = None
    """Checked after the other caps, once the latency has been measured."""

    def __post_init__(self):
        for key in ("max_params", "min_macs", "max_macs", "max_latency_ms"):
            if getattr(self, key) is not None and getattr(self, key) <= 0:
                raise ConfigError(f"constraints.{key}: {getattr(self, key)} must be greater than 0")
        low, high = self.min_macs, self.max_macs
        if low is not None and high is not None and low > high:
            raise ConfigError(f"constraints.min_macs: {low:,} is over max_macs {high:,}; swap them")

    def violated_cap(self, cost: Cost) -> str | None:
        """Name of the first cap that a cost violates, such as "max_params"; None if it violates
        none. Quantities that were not measured violate no cap."""
        for key in ("max_params", "max_macs", "min_macs", "max_latency_ms"):
            limit = getattr(self, key)
            bound, _, quantity = key.partition("_")
            value = getattr(cost, quantity)
            if None not in (limit, value) and (value > limit if bound == "max" else value < limit):
                return key
        return None

    def violation(self, cost: Cost) -> str | None:
        """Why a cost is infeasible, with its numbers; None if it is feasible."""
        key = self.violated_cap(cost)
        if key is None:
            return None
        bound, _, quantity = key.partition("_")
        value, limit = getattr(cost, quantity), getattr(self, key)
        digits = "," if isinstance(value, int) else ".1f"
        return (
            f"{value:{digits}} {_UNITS[quantity]} "
            f"{'over' if bound == 'max' else 'under'} {key} {limit:{digits}}"
        )
