"""A budget of MACs that every design of a space meets by the width of its backbone.

As in computation redistribution (SCRFD, Guo et al. 2021): the share of a fixed amount of MACs that
stem, stages, neck and head get varies, the amount does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from detector.architecture.cost import cost
from detector.base.errors import ConfigError
from detector.base.struct import Struct
from detector.config.detector import Detector

WIDTHS = (1 / 64, 8.0)  # search range, as multipliers of the published widths
BISECTIONS = 11  # of their ratio, 2⁹: to 0.3 %
STEP = 8  # channels; widths are multiples of it


@dataclass(frozen=True, kw_only=True)
class Budget(Struct):
    macs: int
    """Multiply-accumulates for one image of `size`."""
    tolerance: float = 0.02
    """Share of the budget that designs may be over or under it."""
    size: tuple[int, int] = (640, 480)
    """Width and height in px, multiples of 32."""

    def __post_init__(self):
        if self.macs <= 0:
            raise ConfigError(f"budget.macs: {self.macs} must be greater than 0")
        if not 0 < self.tolerance < 1:
            raise ConfigError(
                f"budget.tolerance: {self.tolerance} must be between 0 and 1, such as 0.02"
            )
        if any(side <= 0 or side % 32 for side in self.size):
            raise ConfigError(f"budget.size: {list(self.size)} must be multiples of 32")

    def __str__(self) -> str:
        return (
            f"{self.macs / 1e9:g} G MACs at {self.size[0]}×{self.size[1]} "
            f"± {100 * self.tolerance:g} %"
        )

    @property
    def target(self) -> float:
        """The budget at 640×640, the size of all costs: MACs are proportional to the area of sizes
        that are multiples of the coarsest stride, 32 px."""
        return self.macs * 640 * 640 / (self.size[0] * self.size[1])

    @property
    def caps(self) -> tuple[int, int]:
        """Fewest and most MACs at 640×640."""
        return (
            math.ceil(self.target * (1 - self.tolerance)),
            math.floor(self.target * (1 + self.tolerance)),
        )

    def meet(self, at_width: Callable[[float], Detector]) -> Detector:
        """The design of the width whose MACs are closest to the budget.

        Rounding all widths together seldom meets the tolerance, so rows of blocks are then made 8
        channels wider or narrower, one or two at a time, until it is met or nothing gets closer. A
        design whose neck and head alone exceed the budget gets the narrowest backbone.

        Args:
            at_width: multiplier of the published widths → design, whose MACs grow with it.
        """
        narrow, wide = WIDTHS
        narrowest = at_width(narrow)
        if self._deviation(narrowest) > self.tolerance and self._macs(narrowest) > self.target:
            return narrowest
        for _ in range(BISECTIONS):
            middle = math.sqrt(narrow * wide)
            if self._macs(at_width(middle)) < self.target:
                narrow = middle
            else:
                wide = middle
        best = min((at_width(narrow), at_width(wide)), key=self._deviation)
        deviation = self._deviation(best)
        while deviation > self.tolerance:
            closer = best
            for other in _neighbours(best):
                if (other_deviation := self._deviation(other)) < deviation:
                    closer, deviation = other, other_deviation
                if deviation <= self.tolerance:
                    return closer
            if closer is best:
                break
            best = closer
        return best

    def _macs(self, detector: Detector) -> int:
        return cost(detector)[1]

    def _deviation(self, detector: Detector) -> float:
        """Share of the budget that a design is over or under it."""
        return abs(self._macs(detector) / self.target - 1)


def _neighbours(detector: Detector) -> Iterator[Detector]:
    """One row 8 channels wider or narrower; then one row wider and another one narrower."""
    rows = range(len(detector.backbone.widths))
    changes = [{row: sign * STEP} for row in reversed(rows) for sign in (1, -1)]
    changes += [
        {wider: STEP, narrower: -STEP} for wider in rows for narrower in rows if wider != narrower
    ]
    for change in changes:
        widths = tuple(w + change.get(row, 0) for row, w in enumerate(detector.backbone.widths))
        if min(widths) >= STEP:
            yield replace(detector, backbone=replace(detector.backbone, widths=widths))
