"""A resolved design and its recipe as named numbers, for a model of accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from detector.config.backbones import ROW_OPTIONS
from detector.config.detector import Detector, canonical
from detector.config.recipe import Recipe
from trials.record import Cost

BY_LEVEL = ("widths", "depths", *ROW_OPTIONS)


def features(detector: Detector, recipe: Recipe, cost: Cost) -> dict[str, float]:
    """Features of what gets built and how it is trained, equal for equal designs, however drawn.

    Sizes are log₂; a name or a flag is 1 under "name=value". Blocks and channels are by pyramid
    level, so that backbones of different kinds share features.
    """
    design = canonical(detector)
    backbone, shapes = design.pop("backbone"), design.pop("anchors")
    numbers = {"cost.params": math.log2(cost.params), "cost.macs": math.log2(cost.macs)}
    for level in sorted(set(detector.backbone.spec.levels)):
        rows = [
            i
            for i, row in enumerate(detector.backbone.spec.levels)
            if row == level and i < len(backbone["depths"])
        ]
        if rows:
            numbers[f"backbone.blocks{level}"] = math.log2(sum(backbone["depths"][i] for i in rows))
            numbers[f"backbone.width{level}"] = math.log2(max(backbone["widths"][i] for i in rows))
            for key in ROW_OPTIONS:
                if key in backbone:
                    one = {f"{key.removesuffix('s')}{level}": backbone[key][rows[-1]]}
                    numbers |= dict(_leaves(one, "backbone."))
    sizes = [math.sqrt(width * height) for level in shapes for width, height in level]
    numbers |= {
        "anchors.each": float(len(shapes[0])),
        "anchors.smallest": math.log2(min(sizes)),
        "anchors.largest": math.log2(max(sizes)),
    }
    rest = {key: value for key, value in backbone.items() if key not in BY_LEVEL}
    return numbers | dict(_leaves({"backbone": rest, **design, "recipe": recipe.to_dict()}))


def matrix(rows: Sequence[Mapping[str, float]]) -> np.ndarray:
    """float [N, D]: each feature that varies, scaled to [0, 1] over the rows.

    What a row lacks (such as a level) is 0, below all others.
    """
    names = sorted(set().union(*rows))
    table = np.full((len(rows), len(names)), np.nan)
    for column, name in enumerate(names):
        table[:, column] = [row.get(name, np.nan) for row in rows]
    known = ~np.isnan(table)
    low = np.min(table, axis=0, where=known, initial=np.inf)
    spread = np.max(table, axis=0, where=known, initial=-np.inf) - low
    scaled = (table - low) / np.where(spread > 0, spread, 1.0)
    partly = ~known.all(axis=0)
    scaled[:, partly] = 0.25 + 0.75 * scaled[:, partly]
    scaled[~known] = 0.0
    return scaled[:, (spread > 0) | partly]


def _leaves(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, (str, bool)):
            yield f"{name}={value}", 1.0
        elif isinstance(value, (int, float)):
            yield name, math.log2(value) if value > 0 else float(value)
        elif (
            isinstance(value, (list, tuple))
            and value
            and all(isinstance(v, (int, float)) for v in value)
        ):
            yield from ((f"{name}.first", float(value[0])), (f"{name}.last", float(value[-1])))
