"""From a space's settings ("neck.levels": "P3-P5") to the resolved configuration."""

from __future__ import annotations

import difflib
import re
import typing
from dataclasses import replace

from detector.base.errors import ConfigError
from detector.base.struct import Struct
from detector.config.detector import Backbone, Detector
from detector.config.families import family, level_rows, scaled, spread
from detector.config.recipe import Recipe
from nas.search_space.dimensions import Settings

# Places that are not fields of the configuration, but say how to fill some in.
_DERIVED = {
    "backbone.kind": "another kind starts from its paper's widths and depths",
    "backbone.width": "multiplier of the published widths, the stem's too",
    **{f"backbone.width{k}": f"a further multiplier of widths at level {k}" for k in range(1, 6)},
    "backbone.depth": "multiplier of the published depths",
    **{f"backbone.depth{k}": f"blocks at level {k}" for k in range(1, 6)},
    "neck.levels": "P3-P5: pyramid levels from 3 to 5",
    "activation": "of backbone, neck and context at once",
    "anchors.name": "replaces the baseline's anchors",
}
# Not to be varied: trials would no longer be compared under the same conditions.
_COMMON = (
    "recipe.epochs",
    "recipe.seed",
    "recipe.weights",
    "recipe.cache_size",
    "recipe.evaluation",
)


def _fields(struct: type[Struct], prefix: str = "") -> dict[str, bool]:
    """Dotted paths of all fields, and whether they hold a list."""
    found: dict[str, bool] = {}
    for name, hint in typing.get_type_hints(struct).items():
        if isinstance(hint, type) and issubclass(hint, Struct):
            found |= _fields(hint, f"{prefix}{name}.")
        else:
            found[prefix + name] = "tuple" in str(hint)
    return found


_FIELDS = _fields(Detector) | _fields(Recipe, "recipe.") | dict.fromkeys(_DERIVED, False)
PLACES = sorted(place for place, is_list in _FIELDS.items() if not is_list)


def check_place(place: str, in_bundle: bool = False) -> None:
    """That a dimension can fill this place, or a bundle of values, which may be lists.

    Raises:
        ConfigError: it does not exist, or must be the same for all trials.
    """
    if any(place == p or place.startswith(p + ".") for p in _COMMON):
        raise ConfigError(
            f"{place} must be the same for all trials, to compare them fairly; set "
            "it under proxy (the epochs by rungs)"
        )
    known = sorted(_FIELDS) if in_bundle else PLACES
    if place not in known:
        close = difflib.get_close_matches(place, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known places: {', '.join(known)}"
        raise ConfigError(f"there is no {place} to fill in; {hint}")


def resolve(base: Detector, proxy: Recipe, settings: Settings) -> tuple[Detector, Recipe]:
    """The base under a proxy recipe with all settings filled in.

    What no setting names stays as it is in the base. A pure function.

    Raises:
        ConfigError: settings that break a rule.
    """
    detector, recipe = base.to_dict(), proxy.to_dict()
    detector["backbone"] |= _backbone(base.backbone, settings)
    for place, value in settings.items():
        if place == "neck.levels":
            detector["neck"]["levels"] = list(_levels(value))
        elif place == "anchors.name":
            detector["anchors"] = {"name": value, "offset": detector["anchors"]["offset"]}
        elif place == "activation":
            for part in ("backbone", "neck", "context"):
                detector[part]["activation"] = settings.get(f"{part}.activation", value)
        elif place not in _DERIVED:
            tree, path = detector, place
            if place.startswith("recipe."):
                tree, path = recipe, place.removeprefix("recipe.")
            *parents, leaf = path.split(".")
            for parent in parents:
                tree = tree[parent]
            tree[leaf] = value
    return Detector.from_dict(detector), Recipe.from_dict(recipe, "recipe")


def resized(base: Detector, settings: Settings, detector: Detector, width: float) -> Detector:
    """`detector`, which `settings` gave, as they give it with backbone.width at `width`."""
    scaled_backbone = _backbone(base.backbone, {**settings, "backbone.width": width})
    return replace(
        detector,
        backbone=replace(
            detector.backbone,
            widths=tuple(scaled_backbone["widths"]),
            stem=settings.get("backbone.stem", scaled_backbone["stem"]),
        ),
    )


def _backbone(base: Backbone, settings: Settings) -> dict:
    """stem, widths and depths in numbers; a base of the same kind and block is kept where nothing
    is set."""
    kind = settings.get("backbone.kind", base.kind)
    block = settings.get("backbone.block", base.block if kind == base.kind else "basic")
    published = family(kind, block)
    start = base if (kind, block) == (base.kind, base.block) else published

    width = settings.get("backbone.width")
    if width is None:
        stem, widths = start.stem, list(start.widths)
    else:
        _above_0("backbone.width", width)
        stem, widths = scaled(published.stem * width), [w * width for w in published.widths]
    depth = settings.get("backbone.depth")
    if depth is None:
        depths = list(start.depths)
    else:
        _above_0("backbone.depth", depth)
        depths = [max(1, int(d * depth + 0.5)) for d in published.depths]
    is_scaled = width is not None
    for level in range(1, 6):
        factor = settings.get(f"backbone.width{level}")
        if factor is not None:
            _above_0(f"backbone.width{level}", factor)
            is_scaled = True
            for row in level_rows(kind, level):
                widths[row] = widths[row] * factor
        blocks = settings.get(f"backbone.depth{level}")
        if blocks is not None:
            rows = level_rows(kind, level)
            try:
                shares = spread(blocks, tuple(published.depths[row] for row in rows))
            except ConfigError as error:
                raise ConfigError(f"backbone.depth{level}: {error}") from error
            for row, share in zip(rows, shares):
                depths[row] = share
    if is_scaled:
        widths = [scaled(w) for w in widths]
    return {
        "kind": kind,
        "block": block,
        "stem": stem,
        "widths": list(widths),
        "depths": list(depths),
    }


def _levels(text: object) -> range:
    """P3-P5 → 3, 4, 5."""
    match = re.fullmatch(r"P([2-7])(?:-P([2-7]))?", str(text))
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ConfigError(f"neck.levels: {text!r} must be levels among 2–7, such as P3-P5 or P4")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _above_0(place: str, value) -> None:
    if isinstance(value, (bool, str)) or value <= 0:
        raise ConfigError(f"{place}: {value!r} must be a number above 0")
