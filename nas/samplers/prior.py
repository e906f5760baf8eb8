"""What earlier results say about the accuracy of designs, before a search has trained any of them.

A linear model of log accuracy over the features of designs, fitted to each source (a study, a
recorded table) around that source's own average, as budgets and images differ between them. How
much of it holds in a new search is left to that search: `learning_curves` learns its slope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.base.errors import UserError
from nas.samplers.learning_curves import OFFSET
from trials.stored import JsonFile

MIN_DESIGNS = 10
"""Of a source; fewer say little about so many features."""
MAX_DESIGNS = 400
"""Of a source; the latest ones count."""
PENALTIES = np.logspace(-1, 4, 26)
"""Of ridge regression, tried by leaving out each design in turn."""
MIN_EXPLAINED = 0.05
"""Share of the variance that a useful model predicts of designs that are left out."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Designs that were trained alike."""

    name: str
    features: Sequence[Mapping[str, float]]
    """As `nas.samplers.features.features`."""
    accuracy: np.ndarray
    """Float [N], in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Prior(JsonFile):
    """A linear model, as plain data: `prior.json` of a study that learnt from earlier ones."""

    sources: tuple[str, ...]
    """Such as "retina-001 (58 designs)"."""
    explained: float
    """Share of the variance within the sources that it predicts of designs that are left out."""
    weights: dict
    """Feature → by how much log accuracy rises with it."""
    ranges: dict
    """Feature → its lowest, mean and highest value in the sources. A design beyond them counts as
    if it had the nearest one, and one without the feature as if it had the mean."""

    @classmethod
    def fit(cls, sources: Sequence[Source]) -> Prior | None:
        """The model that all sources agree on; None if it would say nothing about designs that it
        has not seen."""
        sources = [source for source in sources if len(source.accuracy) >= MIN_DESIGNS]
        if not sources:
            return None
        rows = [row for source in sources for row in source.features]
        names = sorted(set().union(*rows))
        ranges = {name: _range(name, rows) for name in names}
        table = _table(rows, names, ranges)
        target = np.log(np.concatenate([source.accuracy for source in sources]) + OFFSET)
        start = 0
        for source in sources:  # each around its own average
            part = slice(start, start + len(source.accuracy))
            table[part] -= table[part].mean(axis=0)
            target[part] -= target[part].mean()
            start = part.stop
        spread = table.std(axis=0)
        varied = spread > 0
        if not varied.any() or not target.any():
            return None
        weights, explained = _ridge(table[:, varied] / spread[varied], target)
        if explained < MIN_EXPLAINED:
            return None
        kept = [name for name, varies in zip(names, varied) if varies]
        return cls(
            sources=tuple(f"{s.name} ({len(s.accuracy)} designs)" for s in sources),
            explained=round(explained, 3),
            weights=dict(zip(kept, (weights / spread[varied]).tolist())),
            ranges={name: list(ranges[name]) for name in kept},
        )

    def predict(self, rows: Sequence[Mapping[str, float]]) -> np.ndarray:
        """Log accuracy of designs, above or below their average, float [N]."""
        names = list(self.weights)
        table = _table(rows, names, {name: tuple(self.ranges[name]) for name in names})
        predicted = table @ np.array([self.weights[name] for name in names])
        return predicted - predicted.mean()

    @classmethod
    def load(cls, path: Path) -> Prior:
        """The prior of a study.

        Raises:
            UserError: the file is missing or damaged.
        """
        remedy = "restore it from a copy, or start a new study"
        try:
            return cls.read(path, remedy)
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; {remedy}") from error


def _range(name: str, rows: Sequence[Mapping[str, float]]) -> tuple[float, float, float]:
    values = [row[name] for row in rows if name in row]
    if _is_category(name):
        return 0.0, 0.0, 1.0
    return min(values), float(np.mean(values)), max(values)


def _table(
    rows: Sequence[Mapping[str, float]],
    names: Sequence[str],
    ranges: Mapping[str, tuple[float, float, float]],
) -> np.ndarray:
    """Float [rows, names]."""
    columns = [
        np.clip([row.get(name, ranges[name][1]) for row in rows], ranges[name][0], ranges[name][2])
        for name in names
    ]
    return np.array(columns, float).T.reshape(len(rows), len(names))


def _is_category(name: str) -> bool:
    """Whether a feature is 1 where a design has a value, such as "neck.kind=fpn"."""
    return "=" in name


def _ridge(inputs: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of ridge regression, float [D], with the penalty that predicts left-out rows best,
    and the share of the variance that it predicts of them.

    Leaving out each row in turn has a closed form: its error is the residual / (1 − its leverage).
    """
    left, singular, right = np.linalg.svd(inputs, full_matrices=False)
    projected = left.T @ target
    best_error, best_penalty = np.inf, PENALTIES[-1]
    for penalty in PENALTIES:
        shrinkage = singular**2 / (singular**2 + penalty)
        leverage = (left**2 * shrinkage).sum(axis=1)
        residual = target - left @ (shrinkage * projected)
        error = float(((residual / np.maximum(1 - leverage, 1e-6)) ** 2).mean())
        if error < best_error:
            best_error, best_penalty = error, penalty
    weights = right.T @ (singular / (singular**2 + best_penalty) * projected)
    return weights, 1 - best_error / float((target**2).mean())
