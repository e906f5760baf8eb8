"""From a space's settings ("neck.levels": "P3-P5") to the resolved configuration.

A setting is the dotted name of a field of the configuration ("head.width", "recipe.optimizer.lr"),
or of a rule in DERIVED from which several fields follow.
"""

from __future__ import annotations

import re
import typing
from dataclasses import replace

from detector.base.errors import ConfigError, did_you_mean
from detector.base.struct import Struct
from detector.config.backbones import BACKBONES, level_rows, published_backbone, scaled, spread
from detector.config.detector import Backbone, Detector
from detector.config.limits import MAX_FACTOR
from detector.config.recipe import Recipe
from nas.search_space.dimensions import Settings

_LEVELS = range(1, 8)  # of backbones

DERIVED = {
    "backbone.kind": "another kind starts from its published widths and depths",
    "backbone.width": "multiplier of the published widths (or of backbone.widths) and the stem",
    **{f"backbone.width{k}": f"a further multiplier of widths at level {k}" for k in _LEVELS},
    "backbone.depth": "multiplier of the published depths",
    **{f"backbone.depth{k}": f"blocks at level {k}" for k in _LEVELS},
    **{f"backbone.kernel{k}": f"kernel size at level {k} (damofd)" for k in range(2, 6)},
    **{
        f"backbone.mid_width{k}": f"a further multiplier of middle widths at level {k} (damofd)"
        for k in range(2, 6)
    },
    "neck.levels": "P3-P5: pyramid levels from 3 to 5",
    "activation": "of backbone, neck and context",
    "anchors.name": "replaces the baseline's anchors",
}
"""Settings that are not fields of the configuration; fields follow from them."""
SHARED = (
    "recipe.epochs",
    "recipe.seed",
    "recipe.weights",
    "recipe.cache_size",
    "recipe.distillation",
    "recipe.evaluation",
)
"""Never varied, as trials are compared under the same conditions."""


def _fields(struct: type[Struct], prefix: str = "") -> dict[str, bool]:
    """Dotted name of each field → whether it holds a list."""
    is_list: dict[str, bool] = {}
    for name, hint in typing.get_type_hints(struct).items():
        if isinstance(hint, type) and issubclass(hint, Struct):
            is_list |= _fields(hint, f"{prefix}{name}.")
        else:
            is_list[prefix + name] = "tuple" in str(hint)
    return is_list


_SETTINGS = _fields(Detector) | _fields(Recipe, "recipe.") | dict.fromkeys(DERIVED, False)
_SCALAR_SETTINGS = sorted(name for name, is_list in _SETTINGS.items() if not is_list)


def is_shared(setting: str) -> bool:
    return any(setting == name or setting.startswith(name + ".") for name in SHARED)


def check_setting(setting: str, in_bundle: bool = False) -> None:
    """Check that a dimension may determine a setting; lists are allowed in a bundle alone.

    Raises:
        ConfigError: there is no such setting, or it must be the same for all trials.
    """
    if is_shared(setting):
        raise ConfigError(
            f"{setting} must be the same for all trials, to compare them fairly; set "
            "it under proxy (the epochs by rungs)"
        )
    if setting in _SETTINGS and _SETTINGS[setting] and not in_bundle:
        raise ConfigError(
            f"{setting} is a list, which only a bundle can set, such as "
            f"{{choice: {{narrow: {{{setting}: [16, 32]}}}}}}"
        )
    known = sorted(_SETTINGS) if in_bundle else _SCALAR_SETTINGS
    if setting not in known:
        hint = did_you_mean(setting, known) or f"known settings: {', '.join(known)}"
        raise ConfigError(f"there is no setting {setting}; {hint}")


def resolve(base: Detector, proxy: Recipe, settings: Settings) -> tuple[Detector, Recipe]:
    """The base design and the proxy recipe with all settings applied; a pure function.

    Fields that no setting determines keep the values of the base and the proxy.

    Raises:
        ConfigError: the settings break a rule.
    """
    detector, recipe = base.to_dict(), proxy.to_dict()
    detector["backbone"] |= _backbone(base.backbone, settings)
    for setting, value in settings.items():
        if setting == "neck.levels":
            detector["neck"]["levels"] = list(_parse_levels(value))
        elif setting == "anchors.name":
            detector["anchors"] = {"name": value, "offset": detector["anchors"]["offset"]}
        elif setting == "activation":
            for part in ("backbone", "neck", "context"):
                detector[part]["activation"] = settings.get(f"{part}.activation", value)
        elif setting not in DERIVED and setting != "backbone.widths":  # in _backbone
            if setting.startswith("recipe."):
                set_field(recipe, setting.removeprefix("recipe."), value)
            else:
                set_field(detector, setting, value)
    return Detector.from_dict(detector), Recipe.from_dict(recipe, "recipe")


def set_field(tree: dict, path: str, value: object) -> None:
    """Set a field of nested mappings, such as optimizer.lr."""
    *parents, leaf = path.split(".")
    for parent in parents:
        tree = tree[parent]
    tree[leaf] = value


def with_backbone_width(
    base: Detector, settings: Settings, detector: Detector, width: float
) -> Detector:
    """`detector`, which is `base` with `settings` applied, with backbone.width at `width`, too."""
    scaled_backbone = _backbone(base.backbone, {**settings, "backbone.width": width})
    return replace(
        detector,
        backbone=replace(
            detector.backbone,
            widths=tuple(scaled_backbone["widths"]),
            mid_widths=scaled_backbone["mid_widths"] and tuple(scaled_backbone["mid_widths"]),
            stem=detector.backbone.stem if "backbone.stem" in settings else scaled_backbone["stem"],
        ),
    )


def _backbone(base: Backbone, settings: Settings) -> dict:
    """kind, block, and all that has a value for each row; a base of the same kind and block has the
    defaults."""
    kind = settings.get("backbone.kind", base.kind)
    block = settings.get("backbone.block", base.block if kind == base.kind else "basic")
    published = published_backbone(kind, block)
    default = base if (kind, block) == (base.kind, base.block) else published

    given = settings.get("backbone.widths")  # multiplied like published ones
    is_wrong = given is not None and not _are_channels(given, len(published.widths))
    if is_wrong:
        given = None
    width = settings.get("backbone.width")
    if width is None:
        stem, widths = default.stem, list(given or default.widths)
        mid_widths = list(default.mid_widths or ())
    else:
        _check_positive("backbone.width", width)
        stem = scaled(published.stem * width)
        widths = [w * width for w in given or published.widths]
        mid_widths = [w * width for w in published.mid_widths or ()]
    depth = settings.get("backbone.depth")
    if depth is None:
        depths = list(default.depths)
    else:
        _check_positive("backbone.depth", depth)
        depths = [max(1, int(d * depth + 0.5)) for d in published.depths]
    kernels = list(default.kernels or ())
    is_scaled = width is not None
    for level in _LEVELS:
        factor = settings.get(f"backbone.width{level}")
        if factor is not None:
            _check_positive(f"backbone.width{level}", factor)
            is_scaled = True
            for row in level_rows(kind, level):
                widths[row] = widths[row] * factor
                if mid_widths:
                    mid_widths[row] = mid_widths[row] * factor
        factor = _row_setting("mid_width", level, kind, settings)
        if factor is not None:
            _check_positive(f"backbone.mid_width{level}", factor)
            is_scaled = True
            for row in level_rows(kind, level):
                mid_widths[row] = mid_widths[row] * factor
        kernel = _row_setting("kernel", level, kind, settings)
        if kernel is not None:
            for row in level_rows(kind, level):
                kernels[row] = kernel
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
        widths, mid_widths = [scaled(w) for w in widths], [scaled(w) for w in mid_widths]
    return {
        "kind": kind,
        "block": block,
        "stem": stem,
        "widths": settings["backbone.widths"] if is_wrong else widths,  # Detector tells the rule
        "depths": list(depths),
        "blocks": default.blocks and list(default.blocks),
        "kernels": kernels or None,
        "mid_widths": mid_widths or None,
        "stem_depth": default.stem_depth,
    }


def _are_channels(values: object, rows: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == rows
        and all(type(value) is int and value > 0 for value in values)
    )


def _row_setting(name: str, level: int, kind: str, settings: Settings):
    """backbone.kernel3 and the like; only some kinds have them."""
    value = settings.get(f"backbone.{name}{level}")
    if value is not None and f"{name}s" not in BACKBONES[kind].options:
        raise ConfigError(f"backbone.{name}{level}: {kind} has no {name}s of its own")
    return value


def _parse_levels(text: object) -> range:
    """P3-P5 → 3, 4, 5."""
    match = re.fullmatch(r"P([2-7])(?:-P([2-7]))?", str(text))
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ConfigError(f"neck.levels: {text!r} must be levels among 2–7, such as P3-P5 or P4")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _check_positive(setting: str, value) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_FACTOR:
        raise ConfigError(
            f"{setting}: {value!r} must be a number above 0 and at most {MAX_FACTOR:,}"
        )
