"""Reads the parts of a space's YAML file and checks them; each error names file and line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from detector.architecture.cost import cost
from detector.base.errors import ConfigError, UserError, did_you_mean
from detector.base.yaml_file import Document
from detector.config.detector import NECKS_WITHOUT_WIDTH, Detector
from detector.config.presets import load_preset, section
from detector.config.recipe import Recipe
from nas.search_space.dimensions import Dimension, Value, is_one_of, parse
from nas.search_space.mac_budget import Budget
from nas.search_space.resolve import check_setting
from trials.constraints import Constraints

KEYS = (
    "name",
    "baseline",
    "dimensions",
    "proxy",
    "rungs",
    "eta",
    "promote",
    "objective",
    "constraints",
    "proxy_synthetic",
    "proxy_long",
    "rungs_long",
    "full",
    "budget",
)
_REQUIRED = KEYS[:5]

_BUDGETED = ("backbone.width", "backbone.widths", "backbone.mid_widths")
"""Settings that a budget determines."""
PROMOTE = ("score", "front")
"""What promotes a paused trial: its score alone, or also being on the front of its rung."""


def check_keys(document: Document) -> None:
    """Raise a UserError for an unknown key, or a required one that is missing."""
    for key in document.data:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS) or f"known keys: {', '.join(KEYS)}"
            raise document.error((str(key),), f"unknown key; {hint}")
    for key in _REQUIRED:
        if document.data.get(key) is None:
            raise document.error((), f"{key}: missing key; add it")


def read_rungs(document: Document, key: str = "rungs") -> tuple[int, ...]:
    """Epochs at which trials may be paused, ascending."""
    rungs = document.data[key]
    are_epochs = (
        isinstance(rungs, list)
        and rungs
        and all(isinstance(r, int) and not isinstance(r, bool) and r > 0 for r in rungs)
    )
    if not are_epochs or rungs != sorted(set(rungs)):
        raise document.error(
            (key,), f"{rungs!r} must be ascending numbers of epochs, such as [1, 3, 9]"
        )
    return tuple(rungs)


def read_proxy_changes(document: Document, key: str, proxy: Recipe, epochs: int) -> Recipe:
    """`proxy` with what a section changes for other images or devices; its epochs are those of the
    rungs."""
    changes = document.data.get(key) or {}
    if not isinstance(changes, dict) or "epochs" in changes:
        raise document.error(
            (key,),
            "must be a mapping of the proxy's keys that differ, without epochs, which follow from "
            "the rungs",
        )
    return section(document, key, Recipe, replace(proxy, epochs=epochs).to_dict())


def read_long_proxies(document: Document, proxy: Recipe) -> tuple[Recipe | None, tuple[int, ...]]:
    """The long proxies and their rungs; None and none if the space has none."""
    given = [key for key in ("proxy_long", "rungs_long") if document.data.get(key) is not None]
    if not given:
        return None, ()
    if len(given) == 1:
        raise document.error(
            (given[0],), "proxy_long and rungs_long go together; add the other one"
        )
    rungs = read_rungs(document, "rungs_long")
    return read_proxy_changes(document, "proxy_long", proxy, rungs[-1]), rungs


def read_budget(document: Document, macs: float | None) -> Budget | None:
    """The file's budget, with `macs` in place of its own if given."""
    if document.data.get("budget") is None:
        if macs is not None:
            raise UserError(
                f"--budget: {document.path} has no budget to change; it varies "
                "backbone.width, or give it the key budget"
            )
        return None
    if macs is not None and isinstance(document.data["budget"], dict):
        document.data["budget"] = {**document.data["budget"], "macs": macs}
    return section(document, "budget", Budget, {})


def check_neck_with_budget(kind: object) -> None:
    """Raise a ConfigError for a neck that no design of a budget has: the width of the backbone
    follows from the budget."""
    if kind in NECKS_WITHOUT_WIDTH:
        raise ConfigError(
            f"neck.kind {kind} needs a backbone of the neck's width, which follows from the "
            "budget; use another kind, or remove the budget"
        )


def read_baseline(document: Document, budget: Budget | None) -> Detector:
    """The baseline's design: of a list of presets the one whose MACs are closest to the budget."""
    given = document.data["baseline"]
    names = given if isinstance(given, list) else [given]
    if not names or (len(names) > 1 and budget is None):
        raise document.error(
            ("baseline",),
            f"{given!r} must be one preset; a list, of which the one closest to the budget is "
            "taken, needs the key budget",
        )
    try:
        designs = [load_preset(str(name))[0] for name in names]
    except UserError as error:
        raise document.error(("baseline",), str(error)) from error
    if budget is None or len(designs) == 1:
        return designs[0]
    target = budget.target
    return min(designs, key=lambda d: abs(math.log(cost(d)[1] / target)))


def read_constraints(document: Document, budget: Budget | None) -> Constraints:
    """The caps, including those of a budget."""
    if budget is None:
        return section(document, "constraints", Constraints, {})
    for key in ("min_macs", "max_macs"):
        if key in (document.data.get("constraints") or {}):
            raise document.error(
                ("constraints", key), "the budget sets it already; remove one of them"
            )
    min_macs, max_macs = budget.caps
    return replace(
        section(document, "constraints", Constraints, {}), min_macs=min_macs, max_macs=max_macs
    )


def read_dimensions(document: Document) -> tuple[Dimension, ...]:
    """The dimensions in the file's order, checked one by one and against each other.

    Raises:
        UserError: lists all dimensions that are wrong.
    """
    entries = document.data["dimensions"]
    if not isinstance(entries, dict) or not entries:
        raise document.error(
            ("dimensions",),
            "must be a mapping of names to their values, such as "
            "neck.width: {choice: [16, 32, 64]}",
        )
    dimensions: dict[str, Dimension] = {}
    has_budget = document.data.get("budget") is not None
    errors: dict[str, UserError | None] = {}
    for name, entry in entries.items():
        keys: tuple[str, ...] = ("dimensions", str(name))
        try:
            dimension = parse(str(name), entry)
            for setting, bundles in dimension.targets.items():
                if bundles:
                    keys = ("dimensions", str(name), "choice", str(bundles[0]), setting)
                check_setting(setting, in_bundle=bool(dimension.bundles))
                if has_budget and setting in _BUDGETED:
                    raise ConfigError(f"{setting} follows from the budget; remove one of them")
            keys = ("dimensions", str(name))
            if errors.keys() & dimension.when.keys():
                errors[dimension.name] = None  # cannot be checked before its parent is fixed
                continue
            when = {
                parent: _condition(parent, values, dimensions, entries)
                for parent, values in dimension.when.items()
            }
            dimension = replace(dimension, when=when)
            _check_satisfiable(dimension, dimensions)
            for other in dimensions.values():
                _check_disjoint(dimension, other, dimensions)
        except ConfigError as error:
            errors[str(name)] = document.error(keys, str(error))
            continue
        dimensions[dimension.name] = dimension
    messages = [str(error) for error in errors.values() if error is not None]
    if messages:
        raise UserError("; also ".join(messages))
    return tuple(dimensions.values())


def _condition(
    parent: str, values: tuple[Value, ...], dimensions: Mapping[str, Dimension], entries: dict
) -> tuple[Value, ...]:
    """The values of `parent` that a condition names; a ConfigError if it never has one of them."""
    if parent not in dimensions:
        if parent in entries:
            raise ConfigError(f"when: {parent} is listed further down; move it above this one")
        hint = did_you_mean(parent, dimensions) or f"above are {', '.join(dimensions) or 'none'}"
        raise ConfigError(f"when: there is no dimension {parent}; {hint}")
    possible = dimensions[parent].values()
    if possible is None:
        raise ConfigError(f"when: {parent} is continuous and hits no value exactly; use a choice")
    found = []
    for value in values:
        own = dimensions[parent].find(value)
        if own is None:
            raise ConfigError(
                f"when: {parent} is never {value!r}; it is one of {', '.join(map(str, possible))}"
            )
        found.append(own)
    return tuple(found)


def _check_satisfiable(dimension: Dimension, dimensions: Mapping[str, Dimension]) -> None:
    """Raise a ConfigError if its conditions, each of which can hold, never do together."""
    for name, values in all_conditions(dimension, dimensions).items():
        if not values:
            raise ConfigError(
                f"when: never holds, as its conditions, and theirs in turn, need different values "
                f"of {name}; change one of them, or remove this dimension"
            )


def _check_disjoint(
    dimension: Dimension, other: Dimension, dimensions: Mapping[str, Dimension]
) -> None:
    """Raise a ConfigError if two dimensions of one setting can be active together."""
    for setting in dimension.targets.keys() & other.targets.keys():
        mine, theirs = (_setting_conditions(d, setting, dimensions) for d in (dimension, other))
        if all(_both(mine[name], theirs[name]) for name in mine if name in theirs):
            raise ConfigError(
                f"sets {setting}, as {other.name} does; give both a `when` on the same "
                "dimension with different values"
            )


def _setting_conditions(
    dimension: Dimension, setting: str, dimensions: Mapping[str, Dimension]
) -> dict[str, tuple[Value, ...]]:
    """The values of other dimensions, and its own bundles, with which it determines a setting."""
    bundles = dimension.targets[setting]
    return all_conditions(dimension, dimensions) | ({dimension.name: bundles} if bundles else {})


def all_conditions(
    dimension: Dimension, dimensions: Mapping[str, Dimension]
) -> dict[str, tuple[Value, ...]]:
    """Its own conditions and those of the dimensions they refer to, which all must hold: of each
    name the values that all of them allow, parents first; none if they contradict each other."""
    conditions: dict[str, tuple[Value, ...]] = {}
    of_parents = [all_conditions(dimensions[name], dimensions) for name in dimension.when]
    for when in (*of_parents, dimension.when):
        for name, values in when.items():
            conditions[name] = _both(conditions[name], values) if name in conditions else values
    return conditions


def _both(some: tuple[Value, ...], others: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple(value for value in some if is_one_of(value, others))
