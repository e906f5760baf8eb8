"""Reads the parts of a space's YAML file and checks them; each complaint names file and line."""

from __future__ import annotations

import difflib
import math
from dataclasses import replace

from detector.architecture.cost import cost
from detector.base.errors import ConfigError, UserError
from detector.base.yaml_file import Document
from detector.config.detector import Detector
from detector.config.presets import load_preset, section
from nas.search_space.dimensions import Dimension, parse
from nas.search_space.mac_budget import Budget
from nas.search_space.resolve import check_place
from trials.constraints import Constraints

_KEYS = (
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
    "budget",
)
_REQUIRED = _KEYS[:5]

PROMOTE = ("score", "front")
"""What lets a paused trial go on: the score alone, or a place on its rung's front, too."""


def check_keys(document: Document) -> None:
    """That all keys are known, and those that must be are there."""
    for key in document.data:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(_KEYS)}"
            raise document.error((str(key),), f"unknown key; {hint}")
    for key in _REQUIRED:
        if document.data.get(key) is None:
            raise document.error((), f"{key}: missing key; add it")


def read_rungs(document: Document) -> tuple[int, ...]:
    """Epochs at which trials may be paused, ascending."""
    rungs = document.data["rungs"]
    whole = (
        isinstance(rungs, list)
        and rungs
        and all(isinstance(r, int) and not isinstance(r, bool) and r > 0 for r in rungs)
    )
    if not whole or rungs != sorted(set(rungs)):
        raise document.error(
            ("rungs",), f"{rungs!r} must be ascending numbers of epochs, such as [1, 3, 9]"
        )
    return tuple(rungs)


def read_budget(document: Document, macs: float | None) -> Budget | None:
    """The file's budget, of `macs` where they are given."""
    if document.data.get("budget") is None:
        if macs is not None:
            raise UserError(
                f"--budget: {document.path} has no budget to change; it varies "
                "backbone.width, or give it the key budget"
            )
        return None
    if macs is not None:
        document.data["budget"] = {**document.data["budget"], "macs": macs}
    return section(document, "budget", Budget, {})


def read_baseline(document: Document, budget: Budget | None) -> Detector:
    """The baseline's design; of a list of presets the one whose MACs are nearest to the budget."""
    given = document.data["baseline"]
    names = given if isinstance(given, list) else [given]
    if len(names) != 1 and budget is None:
        raise document.error(
            ("baseline",),
            f"{given!r} must be one preset; of a list the one "
            "nearest to a budget is taken, and there is none",
        )
    try:
        designs = [load_preset(str(name))[0] for name in names]
    except UserError as error:
        raise document.error(("baseline",), str(error)) from error
    if len(designs) == 1:
        return designs[0]
    return min(designs, key=lambda d: abs(math.log(cost(d)[1] / budget.target)))


def read_constraints(document: Document, budget: Budget | None) -> Constraints:
    """The caps, those of a budget among them."""
    if budget is None:
        return section(document, "constraints", Constraints, {})
    for key in ("min_macs", "max_macs"):
        if key in (document.data.get("constraints") or {}):
            raise document.error(
                ("constraints", key), "the budget says it already; remove one of them"
            )
    least, most = budget.caps
    return replace(section(document, "constraints", Constraints, {}), min_macs=least, max_macs=most)


def read_dimensions(document: Document) -> tuple[Dimension, ...]:
    """The dimensions in the file's order, checked one by one and against each other.

    Raises:
        UserError: tells of all that are wrong at once.
    """
    entries = document.data["dimensions"]
    if not isinstance(entries, dict) or not entries:
        raise document.error(
            ("dimensions",),
            "must be a mapping of names to their values, such as "
            " neck.width: {choice: [16, 32, 64]}",
        )
    found: dict[str, Dimension] = {}
    has_budget = document.data.get("budget") is not None
    complaints: dict[str, UserError | None] = {}
    for name, entry in entries.items():
        keys: tuple[str, ...] = ("dimensions", str(name))
        try:
            dimension = parse(str(name), entry)
            for place, bundles in dimension.places.items():
                if bundles:
                    keys = ("dimensions", str(name), "choice", str(bundles[0]), place)
                check_place(place, in_bundle=bool(dimension.bundles))
                if has_budget and place == "backbone.width":
                    raise ConfigError("backbone.width follows from the budget; remove one of them")
            keys = ("dimensions", str(name))
            if complaints.keys() & dimension.when.keys():
                complaints[dimension.name] = None  # cannot be judged before that one is mended
                continue
            for parent, values in dimension.when.items():
                _check_condition(parent, values, found, entries)
            for other in found.values():
                _check_apart(dimension, other, found)
        except ConfigError as error:
            complaints[str(name)] = document.error(keys, str(error))
            continue
        found[dimension.name] = dimension
    told = [str(complaint) for complaint in complaints.values() if complaint is not None]
    if told:
        raise UserError("; also ".join(told))
    return tuple(found.values())


def _check_condition(
    parent: str, values: tuple, found: dict[str, Dimension], entries: dict
) -> None:
    if parent not in found:
        if parent in entries:
            raise ConfigError(f"when: {parent} stands further down; move it above")
        close = difflib.get_close_matches(parent, found, n=1)
        hint = f"did you mean {close[0]}?" if close else f"above are {', '.join(found) or 'none'}"
        raise ConfigError(f"when: there is no dimension {parent}; {hint}")
    if found[parent].values() is None:
        raise ConfigError(f"when: {parent} is continuous and hits no value exactly; use a choice")
    for value in values:
        if not found[parent].has(value):
            raise ConfigError(
                f"when: {parent} never is {value!r}; it is one of "
                f"{', '.join(map(str, found[parent].values()))}"
            )


def _check_apart(dimension: Dimension, other: Dimension, found: dict[str, Dimension]) -> None:
    """Two dimensions of one place must never be active at once."""
    for place in dimension.places.keys() & other.places.keys():
        mine, theirs = (_fills(d, place, found) for d in (dimension, other))
        if not any(set(mine[name]).isdisjoint(theirs[name]) for name in mine if name in theirs):
            raise ConfigError(
                f"fills {place} as {other.name} does; give both a `when` on the same "
                "dimension with different values"
            )


def _fills(dimension: Dimension, place: str, found: dict[str, Dimension]) -> dict[str, tuple]:
    """The conditions under which it fills a place: `when`, and which bundle is chosen."""
    bundles = dimension.places[place]
    return all_conditions(dimension, found) | ({dimension.name: bundles} if bundles else {})


def all_conditions(dimension: Dimension, found: dict[str, Dimension]) -> dict[str, tuple]:
    """Its own conditions and those under which they can hold."""
    inherited: dict[str, tuple] = {}
    for name in dimension.when:
        inherited |= all_conditions(found[name], found)
    return inherited | dimension.when
