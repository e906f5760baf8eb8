"""Curves that would flatten all others in a chart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trials.record import TrialRecord

FAR_OUT = 3.0
"""Interquartile ranges above the third quartile from which Tukey (1977) calls a value far out."""
MIN_FACTOR = 2.0
"""Highest curve, in multiples of the highest one that is not far out, that still fits a chart."""


def loss_limit(records: Sequence[TrialRecord]) -> tuple[float | None, int]:
    """Where to end the axis of a chart of training losses, such as 12.4, and how many curves leave
    the chart there; None and 0 if all curves fit."""
    losses = [[e.losses.get("total", np.nan) for e in record.epochs] for record in records]
    highest = np.array([max((x for x in row if np.isfinite(x)), default=np.nan) for row in losses])
    known = highest[np.isfinite(highest)]
    if len(known) < 4:
        return None, 0
    first, third = np.quantile(known, [0.25, 0.75])
    limit = float(known[known <= third + FAR_OUT * (third - first)].max())
    if not 0 < MIN_FACTOR * limit < known.max():
        return None, 0
    return 1.05 * limit, int((known > 1.05 * limit).sum())


def loss_label(beyond: int) -> str:
    """The label of the axis of such a chart, which `beyond` curves leave."""
    return f"training loss (sum of all terms{f'; {beyond} beyond' if beyond else ''})"
