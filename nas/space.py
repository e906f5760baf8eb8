"""A search space: read from YAML, asked for parameters, resolved into configurations.

Imports nothing heavy; Optuna only where its distributions are asked for.
"""

from __future__ import annotations

import difflib
import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from detector.config import Detector
from detector.errors import ConfigError, UserError
from detector.presets import PRESETS, load_preset, section
from detector.recipe import Recipe
from detector.yaml_file import Document, read
from nas.dimensions import Dimension, Params, parse
from nas.resolve import check_place, resolve
from nas.scheduler import PROMOTE
from trials.constraints import Constraints
from trials.objective import Objective

SPACES = PRESETS.parent

_KEYS = ("name", "baseline", "dimensions", "proxy", "rungs", "eta", "promote", "objective",
         "constraints", "proxy_synthetic")
_REQUIRED = _KEYS[:5]
_TRIED = 100  # random draws that a space must resolve before it is believed


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What a search may vary, and how each design is tried."""

    name: str
    path: Path
    dimensions: tuple[Dimension, ...]
    """In the file's order; conditions look back only."""
    base: Detector
    """The baseline's design; what no dimension varies stays as it is here."""
    proxy: Recipe
    """How every trial is trained, where no dimension varies that."""
    proxy_synthetic: Recipe
    """The same for the built-in scenes, which are smaller than photographs."""
    rungs: tuple[int, ...]
    """Epochs at which a trial may be paused, ascending; the last one is the full budget."""
    eta: float
    """A trial goes on from a rung when it is among its best 1/eta."""
    promote: str
    """`score`: only then; `front`: also when nothing at its rung beats it in accuracy and speed."""
    objective: Objective
    constraints: Constraints

    @classmethod
    def load(cls, path: Path | str) -> SearchSpace:
        """The space in a YAML file.

        Raises:
            UserError: a rule is broken; names the file, the line, the key, and the way out.
        """
        document = read(Path(path))
        _check_keys(document)
        rungs = _rungs(document)
        proxy = section(document, "proxy", Recipe, {"epochs": rungs[-1]})
        if proxy.epochs != rungs[-1]:
            raise document.error(("rungs",), f"{list(rungs)} must end at the proxy's epochs, "
                                 f"{proxy.epochs}; change one of them")
        synthetic = document.data.get("proxy_synthetic") or {}
        if not isinstance(synthetic, dict) or "epochs" in synthetic:
            raise document.error(("proxy_synthetic",), "must be a mapping of the proxy's keys that "
                                 "differ, without epochs: the rungs are the same")
        eta = document.data.get("eta", 3)
        if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not eta > 1:
            raise document.error(("eta",), f"{eta!r} must be a number above 1, such as 3")
        promote = document.data.get("promote", PROMOTE[0])
        if promote not in PROMOTE:
            raise document.error(("promote",), f"{promote!r} is not one of {', '.join(PROMOTE)}")
        name = document.data["name"]
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise document.error(("name",), f"{name!r} must be letters, digits, dash and "
                                 "underscore; studies are named after it")
        try:
            base, _ = load_preset(str(document.data["baseline"]))
        except UserError as error:
            raise document.error(("baseline",), str(error)) from error
        space = cls(
            name=name, path=document.path, base=base, proxy=proxy, rungs=rungs, eta=eta,
            promote=promote, dimensions=_dimensions(document),
            proxy_synthetic=section(document, "proxy_synthetic", Recipe, proxy.to_dict()),
            objective=section(document, "objective", Objective, {}),
            constraints=section(document, "constraints", Constraints, {}))
        space._try_out(document)
        return space

    def on(self, data) -> SearchSpace:
        """The space with the proxy that fits the data (a `detector.data.Data`)."""
        return replace(self, proxy=self.proxy_synthetic) if data.root is None else self

    @property
    def baseline(self) -> tuple[Detector, Recipe]:
        """The yardstick: the preset's design under this space's proxy recipe."""
        return self.base, self.proxy

    def suggest(self, trial) -> Params:
        """A draw: names that are active, and their values.

        Args:
            trial: an Optuna trial, or anything with its suggest_categorical, _int and _float.
        """
        params: Params = {}
        for dimension in self.dimensions:
            if dimension.active(params):
                params[dimension.name] = dimension.suggest(trial)
        return params

    def resolve(self, params: Mapping) -> tuple[Detector, Recipe]:
        """The design and the recipe that parameters stand for: a pure function.

        Raises:
            UserError: they are not parameters of this space, or break a rule together.
        """
        settings = {d.sets: params[d.name] for d in self._active(params)}
        try:
            return resolve(self.base, self.proxy, settings)
        except ConfigError as error:
            raise UserError(f"{self.path}: {error}; drawn with {_text(params)}") from error

    def distributions(self, params: Mapping, coded: bool = False) -> dict:
        """Optuna's distributions of the active names, for stored trials.

        Args:
            params: of one draw; empty for a design that was given.
            coded: those of what `suggest` asks a trial for: places instead of values where a
                choice is ordered.

        Raises:
            UserError: they are not parameters of this space.
        """
        if not params:
            return {}
        return {d.name: d.distribution(coded) for d in self._active(params)}

    def coded(self, params: Mapping) -> Params:
        """The answers of a trial that made `suggest` return these parameters."""
        return {d.name: d.coded(params[d.name]) for d in self._active(params)} if params else {}

    def size(self) -> int | None:
        """How many designs it has at most (a few may resolve to the same); recipes do not count.

        None where a design's dimension is continuous.
        """
        parents = [d for d in self.dimensions
                   if any(d.name in other.when for other in self.dimensions)]
        others = [d for d in self.dimensions
                  if d not in parents and not d.sets.startswith("recipe.")]
        if any(d.values() is None for d in others):
            return None
        total = 0
        cases = itertools.product(*(d.values() for d in parents))
        met = set()
        for case in cases:
            params: Params = {}
            for dimension, value in zip(parents, case):
                if dimension.active(params):
                    params[dimension.name] = value
            key = tuple(params.items())
            if key not in met:
                met.add(key)
                total += math.prod(len(d.values()) for d in others if d.active(params))
        return total

    def _active(self, params: Mapping) -> list[Dimension]:
        """The dimensions of these parameters, whose names and values are checked."""
        active = [d for d in self.dimensions if d.active(params)]
        names = {d.name for d in active}
        wrong = ([f"{name} is missing" for name in sorted(names - set(params))]
                 + [f"{name} is not active or unknown" for name in sorted(set(params) - names)])
        wrong = wrong or [f"{d.name} cannot be {params[d.name]!r}" for d in active
                          if not d.has(params[d.name])]
        if wrong:
            raise UserError(f"{self.path}: the parameters {_text(params)} do not fit this space: "
                            f"{wrong[0]}; use the space they were drawn from")
        return active

    def _try_out(self, document: Document) -> None:
        """Resolve every choice alone and some draws, so that a mistake shows before a search."""
        by_name = {d.name: d for d in self.dimensions}
        for dimension in self.dimensions:
            for value in dimension.ends():
                settings = {by_name[name].sets: values[0]  # what must hold for it to be active
                            for name, values in _all_conditions(dimension, by_name).items()}
                settings[dimension.sets] = value
                try:
                    resolve(self.base, self.proxy, settings)
                except ConfigError as error:
                    raise document.error(("dimensions", dimension.name),
                                         f"{value!r} does not fit: {error}") from error
        rng = RandomTrial("try out")
        for _ in range(_TRIED):
            self.resolve(self.suggest(rng))


class RandomTrial:
    """Answers each question of `SearchSpace.suggest` by chance, uniformly on its scale."""

    def __init__(self, seed: str | int):
        self._random = random.Random(seed)

    def suggest_categorical(self, name: str, choices):
        return self._random.choice(list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1,
                    log: bool = False) -> int:
        if not log:
            return self._random.randrange(low, high + 1, step)
        value = math.exp(self._random.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return min(max(round(value), low), high)

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None,
                      log: bool = False) -> float:
        if log:
            value = math.exp(self._random.uniform(math.log(low), math.log(high)))
            return min(max(value, low), high)
        if step is not None:
            return low + step * self._random.randint(0, round((high - low) / step))
        return self._random.uniform(low, high)


def _check_keys(document: Document) -> None:
    for key in document.data:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(_KEYS)}"
            raise document.error((str(key),), f"unknown key; {hint}")
    for key in _REQUIRED:
        if document.data.get(key) is None:
            raise document.error((), f"{key}: missing key; add it")


def _rungs(document: Document) -> tuple[int, ...]:
    rungs = document.data["rungs"]
    whole = isinstance(rungs, list) and rungs and all(
        isinstance(r, int) and not isinstance(r, bool) and r > 0 for r in rungs)
    if not whole or rungs != sorted(set(rungs)):
        raise document.error(("rungs",), f"{rungs!r} must be ascending numbers of epochs, such as "
                             "[1, 3, 9]")
    return tuple(rungs)


def _dimensions(document: Document) -> tuple[Dimension, ...]:
    entries = document.data["dimensions"]
    if not isinstance(entries, dict) or not entries:
        raise document.error(("dimensions",), "must be a mapping of names to their values, such as "
                             " neck.width: {choice: [16, 32, 64]}")
    found: dict[str, Dimension] = {}
    for name, entry in entries.items():
        try:
            dimension = parse(str(name), entry)
            check_place(dimension.sets)
            for parent, values in dimension.when.items():
                _check_condition(parent, values, found, entries)
            for other in found.values():
                _check_apart(dimension, other, found)
        except ConfigError as error:
            raise document.error(("dimensions", str(name)), str(error)) from error
        found[dimension.name] = dimension
    return tuple(found.values())


def _check_condition(parent: str, values: tuple, found: dict[str, Dimension],
                     entries: dict) -> None:
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
            raise ConfigError(f"when: {parent} never is {value!r}; it is one of "
                              f"{', '.join(map(str, found[parent].values()))}")


def _check_apart(dimension: Dimension, other: Dimension, found: dict[str, Dimension]) -> None:
    """Two dimensions of one place must never be active at once."""
    if dimension.sets != other.sets:
        return
    mine, theirs = _all_conditions(dimension, found), _all_conditions(other, found)
    if not any(set(mine[name]).isdisjoint(theirs[name]) for name in mine if name in theirs):
        raise ConfigError(f"fills {dimension.sets} as {other.name} does; give both a `when` on the "
                          "same dimension with different values")


def _all_conditions(dimension: Dimension, found: dict[str, Dimension]) -> dict[str, tuple]:
    """Its own conditions and those under which they can hold."""
    inherited: dict[str, tuple] = {}
    for name in dimension.when:
        inherited |= _all_conditions(found[name], found)
    return inherited | dimension.when


def _text(params: Mapping) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items()) or "(none)"
