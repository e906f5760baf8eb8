"""A budget of MACs that every design of a space meets: the backbone's width is what it leaves.

This is how computation redistribution draws (SCRFD, Guo et al. 2021): which share of a fixed
amount of work stem, stages, neck and head get is varied, the amount is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from detector.architecture.cost import cost
from detector.base.errors import ConfigError
from detector.base.struct import Struct
from detector.config.detector import Detector

WIDTHS = (1 / 64, 8.0)  # multipliers of the published widths between which is looked
HALVINGS = 11  # of their ratio, 2⁹: to 0.3 %
STEP = 8  # channels: widths are multiples


@dataclass(frozen=True, kw_only=True)
class Budget(Struct):
    macs: int
    """Multiply-accumulates for one image of `size`."""
    tolerance: float = 0.02
    """Designs may be over or under by this share."""
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
        """The budget at 640×640, where costs are told: MACs are in proportion to the area of sizes
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
        """The design of the width whose MACs are nearest to the budget.

        Its rows are then made wider or narrower by 8 channels, one or two at a time, as long as
        that leads into the tolerance: all widths rounded at once seldom hit it. A design whose
        neck and head alone are over the budget is told with the narrowest backbone.

        Args:
            at_width: the design with a multiplier of the published widths; MACs grow with it.
        """
        narrow, wide = WIDTHS
        if self._off(least := at_width(narrow)) > self.tolerance and self._macs(least) > (
            self.target
        ):
            return least
        for _ in range(HALVINGS):
            middle = math.sqrt(narrow * wide)
            if self._macs(at_width(middle)) < self.target:
                narrow = middle
            else:
                wide = middle
        best = min((at_width(narrow), at_width(wide)), key=self._off)
        off = self._off(best)
        while off > self.tolerance:
            nearer = best
            for other in _neighbours(best):
                if (other_off := self._off(other)) < off:
                    nearer, off = other, other_off
                if off <= self.tolerance:
                    return nearer
            if nearer is best:
                break
            best = nearer
        return best

    def _macs(self, detector: Detector) -> int:
        return cost(detector)[1]

    def _off(self, detector: Detector) -> float:
        """By which share of the budget it is over or under."""
        return abs(self._macs(detector) / self.target - 1)


def _neighbours(detector: Detector) -> Iterator[Detector]:
    """One row 8 channels wider or narrower; then one wider and another one narrower."""
    rows = range(len(detector.backbone.widths))
    moves = [{row: sign * STEP} for row in reversed(rows) for sign in (1, -1)]
    moves += [{up: STEP, down: -STEP} for up in rows for down in rows if up != down]
    for move in moves:
        widths = tuple(w + move.get(row, 0) for row, w in enumerate(detector.backbone.widths))
        if min(widths) >= STEP:
            yield replace(detector, backbone=replace(detector.backbone, widths=widths))
