"""What a design may cost at most: caps that are checked before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

from detector.base.errors import ConfigError
from detector.base.struct import Struct
from trials.record import Cost

_UNITS = {"params": "parameters", "macs": "MACs at 640×640", "latency_ms": "ms at 640×640"}


@dataclass(frozen=True, kw_only=True)
class Constraints(Struct):
    max_params: int | None = 45_000_000
    """The competition's rule; none: no cap."""
    min_macs: int | None = None
    """Multiply-accumulates at 640×640 that a design has at least."""
    max_macs: int | None = None
    max_latency_ms: float | None = None
    """Asked once the latency is measured, so after the others."""

    def __post_init__(self):
        for key in ("max_params", "min_macs", "max_macs", "max_latency_ms"):
            if getattr(self, key) is not None and getattr(self, key) <= 0:
                raise ConfigError(f"constraints.{key}: {getattr(self, key)} must be greater than 0")
        if None not in (self.min_macs, self.max_macs) and self.min_macs > self.max_macs:
            raise ConfigError(
                f"constraints.min_macs: {self.min_macs:,} is over max_macs "
                f"{self.max_macs:,}; swap them"
            )

    def broken(self, cost: Cost) -> str | None:
        """Name of the first cap that a cost breaks; what was not measured breaks none."""
        for key in ("max_params", "max_macs", "min_macs", "max_latency_ms"):
            limit = getattr(self, key)
            side, _, quantity = key.partition("_")
            value = getattr(cost, quantity)
            if None not in (limit, value) and (value > limit if side == "max" else value < limit):
                return key
        return None

    def violation(self, cost: Cost) -> str | None:
        """Why a cost is infeasible, with its numbers; none where it is feasible."""
        key = self.broken(cost)
        if key is None:
            return None
        side, _, quantity = key.partition("_")
        value, limit = getattr(cost, quantity), getattr(self, key)
        digits = "," if isinstance(value, int) else ".1f"
        return (
            f"{value:{digits}} {_UNITS[quantity]} "
            f"{'over' if side == 'max' else 'under'} {key} {limit:{digits}}"
        )
