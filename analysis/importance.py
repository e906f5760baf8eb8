"""Which choices matter for accuracy at a given cost. Numbers alone, no drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trials.record import TrialRecord

MIN_TRIALS = 12
MAX_TRIALS = 2_000
FITS = 12
"""Forests, each on another part of the trials: the interval is their spread."""
TREES = 40


@dataclass(frozen=True)
class Importance:
    feature: str
    value: float
    """Share of the variance of accuracy at its cost that is lost where the feature's values are
    shuffled; about 0 where it does not matter, and may be below."""
    low: float
    high: float
    """10 % and 90 % quantile over the forests."""


@dataclass(frozen=True)
class Importances:
    features: tuple[Importance, ...]
    """Most important first."""
    explained: float
    """Share of the variance that the forests explain on trials they did not see; at most 0: there
    is nothing to learn from these trials."""
    trials: int
    epoch: int
    """The budget whose accuracy is explained."""


def beyond_cost(accuracy: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Accuracy at a given cost: what is left of it after the best parabola in log cost.

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
    """Permutation importance of a random forest (Breiman 2001; scikit-learn's), measured on trials
    that the forest did not see.

    Args:
        values: float [N, D], nan where a feature is not there.
        target: float [N].
        names: of the D features.

    Returns:
        The features, most important first, and the mean R² on unseen trials.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import ShuffleSplit

    drops, explained = [], []
    for fit, (train, test) in enumerate(
        ShuffleSplit(FITS, test_size=0.3, random_state=seed).split(values)
    ):
        forest = RandomForestRegressor(
            TREES, min_samples_leaf=2, max_features=0.5, random_state=seed + fit
        ).fit(values[train], target[train])
        variance = float(np.mean((target[test] - target[train].mean()) ** 2)) or 1.0
        error = float(np.mean((target[test] - forest.predict(values[test])) ** 2))
        explained.append(1 - error / variance)
        drops.append(
            permutation_importance(
                forest,
                values[test],
                target[test],
                scoring="neg_mean_squared_error",
                n_repeats=3,
                random_state=seed + fit,
            ).importances_mean
            / variance
        )
    drops = np.array(drops)
    low, high = np.quantile(drops, [0.1, 0.9], axis=0)
    found = [
        Importance(name, float(mean), float(a), float(b))
        for name, mean, a, b in zip(names, drops.mean(axis=0), low, high)
    ]
    return sorted(found, key=lambda i: -i.value), float(np.mean(explained))


def importances_of(records: Sequence[TrialRecord], seed: int = 0) -> Importances | None:
    """The choices that explain accuracy at a given number of MACs; none where there are fewer than
    MIN_TRIALS trials to tell from.

    The budget is the highest one that at least MIN_TRIALS × 3 trials reached, else the one that
    most did: many designs at a lower budget tell more than a few, picked, at the full one.
    """
    scored: dict[int, list[tuple[TrialRecord, float]]] = {}
    for record in records:
        for epoch in record.epochs:
            if epoch.ap is not None:
                scored.setdefault(epoch.epoch, []).append((record, epoch.accuracy_score))
    enough = [epoch for epoch in scored if len(scored[epoch]) >= 3 * MIN_TRIALS]
    epoch = max(enough) if enough else max(scored, key=lambda e: (len(scored[e]), e), default=None)
    if epoch is None or len(scored[epoch]) < MIN_TRIALS:
        return None
    rows = scored[epoch]
    if len(rows) > MAX_TRIALS:
        kept = np.random.default_rng(seed).choice(len(rows), MAX_TRIALS, replace=False)
        rows = [rows[index] for index in sorted(kept)]
    values, names, _ = feature_table([resolved(record) for record, _ in rows])
    if not names:
        return None
    target = beyond_cost([accuracy for _, accuracy in rows], [r.cost.macs for r, _ in rows])
    found, explained = importances(values, target, names, seed=seed)
    return Importances(tuple(found), explained, len(rows), epoch)


def resolved(record: TrialRecord) -> dict[str, object]:
    """A trial's design and recipe as flat features, under the names that spaces use.

    What was built, not what was drawn: so a width counts as one feature whichever dimension of
    the space it came from. The lists of a backbone (one entry a row of its table) are told by
    their sum and last entry.
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
            elif not isinstance(value, (list, dict)):
                flat[name] = value
    if flat.get("backbone.kind") != "resnet":
        flat.pop("backbone.block", None)
    if flat.get("backbone.kind") != "mobilenet_v2":
        flat.pop("backbone.expansion", None)
    return flat


def feature_table(
    rows: Sequence[Mapping[str, object]],
) -> tuple[np.ndarray, list[str], list[dict[float, str]]]:
    """Features as numbers: float [N, D], the D names, and for each the text of its numbers (empty
    where they are numbers to begin with). Only those that vary.

    Text is numbered by its values in order of the alphabet; what a row lacks is nan. Features that
    always agree (activation of the neck and of the context) are one.
    """
    columns: dict[str, np.ndarray] = {}
    texts: list[dict[float, str]] = []
    seen: set[bytes] = set()
    for name in dict.fromkeys(name for row in rows for name in row):
        given = [row.get(name) for row in rows]
        words: list[str] = []
        if any(isinstance(value, (str, bool)) for value in given):
            words = sorted({str(value) for value in given if value is not None})
            given = [None if value is None else words.index(str(value)) for value in given]
        column = np.array([np.nan if value is None else float(value) for value in given])
        known = column[~np.isnan(column)]
        varies = len(np.unique(known)) > 1 or 0 < len(known) < len(rows)
        if varies and column.tobytes() not in seen:
            seen.add(column.tobytes())
            columns[name] = column
            texts.append(dict(enumerate(words)))
    values = np.column_stack([*columns.values()]) if columns else np.zeros((len(rows), 0))
    return values, [*columns], texts
