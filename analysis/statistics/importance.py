"""Which choices matter for accuracy at a given cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.statistics.sample import random_sample
from trials.record import TrialRecord

MIN_TRIALS = 12
MAX_TRIALS = 2_000
FITS = 12
"""Forests, each on a different split of the trials: the interval is their spread."""
TREES = 40
SHUFFLES = 3
"""Of each feature, for each forest."""
MIN_EXPLAINED = 0.3
"""Share of the variance that forests must explain on unseen trials for their importances to say
anything."""


@dataclass(frozen=True)
class Importance:
    feature: str
    value: float
    """Share of the variance of accuracy at its cost that is lost when the feature's values are
    shuffled; about 0, possibly below, where it does not matter."""
    low: float
    high: float
    """10 % and 90 % quantiles over the forests."""


@dataclass(frozen=True)
class Importances:
    features: tuple[Importance, ...]
    """Most important first."""
    explained: float
    """Share of the variance that the forests explain on unseen trials (R²); 0 or less: nothing can
    be learned from these trials."""
    trials: int
    epoch: int
    """The budget whose accuracy is explained."""

    @property
    def reliable(self) -> bool:
        return self.explained >= MIN_EXPLAINED

    @property
    def reliability(self) -> str:
        """How far the importances can be trusted, in one line."""
        share = (
            f"{100 * self.explained:.0f} % of it" if self.explained >= 0.005 else "nothing of it"
        )
        return (
            f"{self.trials} trials at epoch {self.epoch}; on unseen trials the forests explain "
            f"{share} (R² {self.explained:.2f})"
        )


def beyond_cost(accuracy: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Accuracy at a given cost: the residuals of a parabola fitted in log cost.

    Args:
        accuracy, cost: float [N], cost above 0.

    Returns:
        float [N] with mean 0.
    """
    x = np.log10(np.asarray(cost, dtype=float))
    x = x - x.mean()
    design = np.column_stack([np.ones_like(x), x, x**2])
    accuracy = np.asarray(accuracy, dtype=float)
    return accuracy - design @ np.linalg.lstsq(design, accuracy, rcond=None)[0]


def importances(
    values: np.ndarray, target: np.ndarray, names: Sequence[str], *, seed: int = 0
) -> tuple[list[Importance], float]:
    """Permutation importance of a random forest (Breiman 2001), measured on trials that the forest
    was not fitted on.

    Args:
        values: float [N, D], NaN where a trial lacks the feature.
        target: float [N].
        names: of the D features.

    Returns:
        The features, most important first, and the mean R² on unseen trials.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import ShuffleSplit

    losses, explained = [], []
    for fit, (train, test) in enumerate(
        ShuffleSplit(FITS, test_size=0.3, random_state=seed).split(values)
    ):
        forest = RandomForestRegressor(
            TREES, min_samples_leaf=2, max_features=0.5, random_state=seed + fit
        ).fit(values[train], target[train])
        variance = float(np.mean((target[test] - target[train].mean()) ** 2)) or 1.0
        error = float(np.mean((target[test] - forest.predict(values[test])) ** 2))
        explained.append(1 - error / variance)
        rng = np.random.default_rng(seed + fit)
        shuffled_errors = [
            np.mean((target[test] - _predict_shuffled(forest, values[test], rng)) ** 2, axis=1)
            for _ in range(SHUFFLES)
        ]
        losses.append((np.mean(shuffled_errors, axis=0) - error) / variance)
    low, high = np.quantile(losses, [0.1, 0.9], axis=0)
    features = [
        Importance(name, float(mean), float(a), float(b))
        for name, mean, a, b in zip(names, np.mean(losses, axis=0), low, high)
    ]
    return sorted(features, key=lambda i: -i.value), float(np.mean(explained))


def _predict_shuffled(forest, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float [D, N]: in row d, predictions for values [N, D] whose feature d is shuffled.

    In one call: the many small ones of `sklearn.inspection` take far longer.
    """
    count, features = values.shape
    shuffled = np.repeat(values[None], features, axis=0)
    for feature in range(features):
        shuffled[feature, :, feature] = rng.permutation(values[:, feature])
    return forest.predict(shuffled.reshape(-1, features)).reshape(features, count)


def importances_of(records: Sequence[TrialRecord], seed: int = 0) -> Importances | None:
    """The choices that explain accuracy at a given number of MACs; None with fewer than MIN_TRIALS
    trials.

    The budget is the highest one that at least MIN_TRIALS × 3 trials reached, else the one that
    most did: many designs at a low budget say more than a few selected ones at the full budget.
    """
    scored: dict[int, list[tuple[TrialRecord, float]]] = {}
    for record in records:
        for epoch in record.epochs:
            if (accuracy := epoch.accuracy_score) is not None:
                scored.setdefault(epoch.epoch, []).append((record, accuracy))
    counts = {epoch: len(rows) for epoch, rows in scored.items()}
    if not counts or max(counts.values()) < MIN_TRIALS:
        return None
    enough = [epoch for epoch, count in counts.items() if count >= 3 * MIN_TRIALS]
    budget = max(enough) if enough else max(counts, key=lambda epoch: (counts[epoch], epoch))
    rows = random_sample(scored[budget], MAX_TRIALS, seed)
    values, names, _ = feature_table(choices([record for record, _ in rows], records))
    if not names:
        return None
    target = beyond_cost(
        np.array([accuracy for _, accuracy in rows]), np.array([r.cost.macs for r, _ in rows])
    )
    features, explained = importances(values, target, names, seed=seed)
    return Importances(tuple(features), explained, len(rows), budget)


def choices(
    records: Sequence[TrialRecord], study: Sequence[TrialRecord]
) -> list[dict[str, object]]:
    """The features of each trial.

    If all sampled trials of the study have the same dimensions, their values, under the names that
    the space uses; a trial that was not sampled lacks those that `resolved` does not list. Else, in
    a space with conditional dimensions, what `resolved` lists.

    Args:
        study: all trials of the study.
    """
    names = [tuple(record.params) for record in study if record.params]
    if len(set(names)) != 1 or len(names) < len(study) / 2:
        return [resolved(record) for record in records]
    return [
        {name: _scalar(source.get(name)) for name in names[0]}
        for source in (record.params or resolved(record) for record in records)
    ]


def _scalar(value: object) -> object:
    return str(value) if isinstance(value, (list, tuple, dict)) else value


def resolved(record: TrialRecord) -> dict[str, object]:
    """A trial's design and recipe as flat features, under the names that search spaces use.

    They describe what was built, not what was sampled: a width is one feature whichever dimension
    of the space set it. A backbone's depths are summarized by their sum, its widths by the last
    and the middle one.
    """
    flat: dict[str, object] = {}
    for part, content in record.recipe.to_dict().items():
        fields = content if isinstance(content, dict) else {"": content}
        flat |= {
            f"recipe.{part}.{key}".rstrip("."): value
            for key, value in fields.items()
            if not isinstance(value, (list, dict)) and value is not None
        }
    for part, content in record.detector.to_dict().items():
        for key, value in content.items():
            if part == "pixels":
                continue
            name = f"{part}.{key}"
            if key == "levels":
                flat["finest level"], flat["neck levels"] = value[0], len(value)
            elif key == "depths":
                flat["backbone blocks"] = sum(value)
            elif key == "widths":
                flat["backbone last width"] = value[-1]
                flat["backbone mid width"] = value[len(value) // 2]
            elif key in ("blocks", "kernels", "mid_widths"):  # of each row
                if key == "kernels" and value:
                    flat["backbone largest kernel"] = max(value)
            elif not isinstance(value, (list, dict)):
                flat[name] = value
    for option in ("block", "expansion", "stem_depth"):
        if option not in record.detector.backbone.spec.options:
            flat.pop(f"backbone.{option}", None)
    return flat


def feature_table(
    rows: Sequence[Mapping[str, object]],
) -> tuple[np.ndarray, list[str], list[dict[float, str]]]:
    """Features as numbers, only those that vary.

    Text and booleans are numbered in alphabetical order; what a row lacks is NaN. Of features that
    always agree (activation of the neck and of the context), only the first is listed.

    Returns:
        float [N, D], the D names, and for each feature number → text (empty for numeric ones).
    """
    columns: dict[str, np.ndarray] = {}
    texts: list[dict[float, str]] = []
    seen: set[bytes] = set()
    for name in dict.fromkeys(name for row in rows for name in row):
        column, words = _column([row.get(name) for row in rows])
        known = column[~np.isnan(column)]
        varies = len(np.unique(known)) > 1 or 0 < len(known) < len(rows)
        if varies and column.tobytes() not in seen:
            seen.add(column.tobytes())
            columns[name] = column
            texts.append(dict(enumerate(words)))
    table = np.column_stack([*columns.values()]) if columns else np.zeros((len(rows), 0))
    return table, [*columns], texts


def _column(values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
    """Values as numbers, NaN for None, and the text of each number if they are text."""
    if any(isinstance(value, (str, bool)) for value in values):
        words = sorted({str(value) for value in values if value is not None})
        numbers = [None if value is None else words.index(str(value)) for value in values]
    else:
        words, numbers = [], [*values]
    return np.array([np.nan if n is None else float(n) for n in numbers]), words
