"""How well a proxy ranks designs compared with their full trainings, and which it wrongs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.correlation import Correlation, rank_correlation
from analysis.statistics.fidelities import log_odds
from trials.growth import REFERENCE_MACS

MIN_DECADES = 0.1
"""Of MACs, between the cheapest and the most costly design, to say anything about cost."""
MIN_FAMILY = 4
"""Designs that a family needs for a correlation of its own."""
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """The same designs by their proxies and by their full trainings."""

    looks: tuple[int, ...]
    """Epochs of the proxy at which it was evaluated, ascending."""
    proxy: np.ndarray
    """float [N, looks], accuracy score."""
    full: np.ndarray
    """float [N], accuracy score of the full training."""
    proxy_scores: np.ndarray
    full_scores: np.ndarray
    """The scores with these accuracies, of the same shapes."""
    macs: np.ndarray
    """float [N]."""
    families: tuple[str, ...]
    """[N], such as "resnet"."""


@dataclass(frozen=True)
class Look:
    """How one look of the proxy ranks the designs."""

    epoch: int
    accuracy: Correlation
    score: Correlation
    """Kendall's τ with the full training's accuracy score, and score."""
    within: float
    """τ of the accuracy scores over pairs of one family alone; NaN without such pairs."""


@dataclass(frozen=True)
class Bias:
    """What the proxy's last look gets wrong systematically: the full training's accuracy score
    minus what a straight line through the proxy's predicts, by what it depends on."""

    per_decade: float
    """Its slope over log10 of the MACs: positive if the proxy wrongs large designs."""
    low: float
    high: float
    """95 % interval of the slope, by bootstrap over the designs."""


@dataclass(frozen=True)
class MeasuredGrowth:
    """The line of a `trials.growth.Growth` through what the designs gained."""

    base: float
    per_decade: float
    error: float
    """Standard error of `per_decade`."""


def looks(rungs: Rungs) -> list[Look]:
    """Each look of the proxy against the full training."""
    return [
        Look(
            epoch,
            rank_correlation(rungs.proxy[:, index], rungs.full, resamples=RESAMPLES),
            rank_correlation(rungs.proxy_scores[:, index], rungs.full_scores, resamples=RESAMPLES),
            within_families(rungs.proxy[:, index], rungs.full, rungs.families),
        )
        for index, epoch in enumerate(rungs.looks)
    ]


def within_families(x: np.ndarray, y: np.ndarray, families: Sequence[str]) -> float:
    """Kendall's τ-a over the pairs of designs of one family, all families together.

    Args:
        x, y: float [N].
        families: [N].
    """
    names = np.array(families)
    same = np.triu(names[:, None] == names, 1)
    if not same.any():
        return float("nan")
    agreement = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    return float(agreement[same].mean())


def bias(rungs: Rungs, seed: int = 0) -> Bias | None:
    """What the last look gets wrong by cost; None where the costs hardly vary. Needs at least three
    designs."""
    decades = np.log10(rungs.macs)
    if np.ptp(decades) < MIN_DECADES:
        return None
    slopes = []
    rng = np.random.default_rng(seed)
    for chosen in rng.integers(0, len(decades), (RESAMPLES, len(decades))):
        if np.ptp(decades[chosen]) and np.ptp(rungs.proxy[chosen, -1]):
            own = _residuals(rungs.proxy[chosen, -1], rungs.full[chosen])
            slopes.append(np.polyfit(decades[chosen], own, 1)[0])
    low, high = np.quantile(slopes, [0.025, 0.975])
    residuals = _residuals(rungs.proxy[:, -1], rungs.full)
    return Bias(float(np.polyfit(decades, residuals, 1)[0]), float(low), float(high))


def family_bias(rungs: Rungs) -> dict[str, float]:
    """The mean of the same in each family of at least MIN_FAMILY designs."""
    residuals = _residuals(rungs.proxy[:, -1], rungs.full)
    names = np.array(rungs.families)
    return {
        name: float(residuals[names == name].mean())
        for name, count in sorted(Counter(rungs.families).items())
        if count >= MIN_FAMILY
    }


def growth(rungs: Rungs) -> MeasuredGrowth | None:
    """By least squares; None where the costs hardly vary. Needs at least three designs."""
    if np.ptp(np.log10(rungs.macs)) < MIN_DECADES:
        return None
    gained = log_odds(rungs.full) - log_odds(rungs.proxy[:, -1])
    x = np.stack([np.ones(len(gained)), np.log10(rungs.macs / REFERENCE_MACS)], axis=1)
    line, *_ = np.linalg.lstsq(x, gained, rcond=None)
    variance = ((gained - x @ line) ** 2).sum() / (len(gained) - 2)
    error = (variance * np.linalg.inv(x.T @ x)[1, 1]) ** 0.5
    return MeasuredGrowth(float(line[0]), float(line[1]), float(error))


def _residuals(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y - np.polyval(np.polyfit(x, y, 1), x)


def spread(costs: np.ndarray, values: np.ndarray, families: Sequence[str], count: int) -> list[int]:
    """Indices of `count` designs spread over cost, value and family: the first one, then again and
    again the one that is farthest from those chosen (maximin design, Johnson et al. 1990).

    Args:
        costs: float [N], such as MACs; compared on a log scale.
        values: float [N], such as accuracy scores; compared by rank.
        families: [N].
    """
    if len(costs) <= count:
        return list(range(len(costs)))
    logs = np.log10(costs)
    ranks = np.argsort(np.argsort(values, kind="stable")) / (len(values) - 1)
    points = np.stack([(logs - logs.min()) / (np.ptp(logs) or 1), ranks], axis=1)
    names = np.array(families)
    chosen = [0]
    while len(chosen) < count:
        distances = np.linalg.norm(points[:, None] - points[chosen], axis=2)
        distances += 0.5 * (names[:, None] != names[chosen])
        chosen.append(int(distances.min(axis=1).argmax()))
    return chosen
