"""One thing that a space varies: its values, its scale, and when it is varied at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from detector.base.errors import ConfigError

Value = bool | int | float | str
Settings = Mapping[str, object]
"""What is filled in where: values by place; in a bundle they may be lists."""
Params = dict[str, Value]
KINDS = ("choice", "int", "float")
_KEYS = (*KINDS, "log", "step", "when", "sets")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """A name with the values it may take.

    `choice` of numbers in ascending order is an ordered one: a sampler is told the order.
    """

    name: str
    sets: str | None = None
    """Path of what it fills in; several may fill one place under different conditions. None: it is
    a choice of bundles."""
    kind: str
    """One of KINDS."""
    choices: tuple[Value, ...] = ()
    """The values, or the names of the bundles."""
    bundles: Mapping[str, Settings] = field(default_factory=dict)
    """What each name of a choice fills in, several places at once."""
    low: float = 0
    high: float = 0
    """int and float: the bounds, both included."""
    log: bool = False
    step: float | None = None
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """Active only where each named dimension is active and has one of these values."""

    @property
    def places(self) -> dict[str, tuple[Value, ...]]:
        """The places it fills in, and the values with which it does where not with all."""
        if self.sets is not None:
            return {self.sets: ()}
        found: dict[str, tuple[Value, ...]] = {}
        for name, settings in self.bundles.items():
            for place in settings:
                found[place] = (*found.get(place, ()), name)
        return found

    @property
    def shapes_design(self) -> bool:
        """Whether it varies what gets built, not only how that is trained."""
        return not all(place.startswith("recipe.") for place in self.places)

    def settings(self, value: Value) -> Settings:
        """What it fills in where it has this value."""
        return self.bundles[value] if self.sets is None else {self.sets: value}

    def active(self, params: Mapping[str, Value]) -> bool:
        return all(_among(params.get(name), values) for name, values in self.when.items())

    @property
    def ordered(self) -> bool:
        """A choice of ascending numbers."""
        return (
            self.kind == "choice"
            and len(self.choices) > 1
            and not any(isinstance(c, (bool, str)) for c in self.choices)
            and list(self.choices) == sorted(self.choices)
        )

    def suggest(self, trial) -> Value:
        """A value from an Optuna trial, or from anything with the same three methods."""
        if self.ordered:
            return self.choices[trial.suggest_int(self.name, 0, len(self.choices) - 1)]
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.kind == "int":
            return trial.suggest_int(
                self.name, self.low, self.high, step=self.step or 1, log=self.log
            )
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def coded(self, value: Value) -> Value:
        """What `suggest` asked the trial for when it returned `value`: the inverse."""
        return self.choices.index(value) if self.ordered else value

    def distribution(self, coded: bool = False):
        """Optuna's description of the values; `coded`: of what `suggest` asks a trial for."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.kind == "choice":
            if coded and self.ordered:
                return IntDistribution(0, len(self.choices) - 1)
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(self.low, self.high, log=self.log, step=self.step or 1)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def has(self, value) -> bool:
        """Whether it may take this value."""
        if self.kind == "choice":
            return _among(value, self.choices)
        if isinstance(value, (bool, str)) or value is None:
            return False
        return self.low <= value <= self.high and (self.kind == "float" or value == int(value))

    def values(self) -> tuple[Value, ...] | None:
        """All values, or none where they cannot be counted."""
        if self.kind == "choice":
            return self.choices
        if self.kind == "float" and self.step is None:
            return None
        step = self.step or 1
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.low + i * step for i in range(count))

    def ends(self) -> tuple[Value, ...]:
        """Every choice, or both bounds: what is tried out when a space is read."""
        return self.choices if self.kind == "choice" else (self.low, self.high)


def every_design(dimensions: Iterable[Dimension], most: int | None = None) -> list[Params] | None:
    """The parameters of all draws there can be, in the order of the values; none where they cannot
    be counted or are more than `most`."""
    found: list[Params] = [{}]
    for dimension in dimensions:
        values = dimension.values()
        if values is None:
            return None
        found = [
            params | added
            for params in found
            for added in (
                [{dimension.name: value} for value in values] if dimension.active(params) else [{}]
            )
        ]
        if most is not None and len(found) > most:
            return None
    return found


def parse(name: str, data) -> Dimension:
    """A dimension from its YAML entry, such as `{int: [1, 4], when: {backbone.kind: resnet}}`.

    Raises:
        ConfigError: the rule that is broken and the way out, without the dimension's name.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{data!r} must be a mapping such as {{choice: [16, 32, 64]}}")
    for key in data:
        if key not in _KEYS:
            raise ConfigError(f"unknown key {key}; known keys: {', '.join(_KEYS)}")
    kinds = [kind for kind in KINDS if kind in data]
    if len(kinds) != 1:
        raise ConfigError(
            f"has {' and '.join(kinds) or 'none'} of choice, int, float; give one of them"
        )
    kind = kinds[0]
    common = {"name": name, "kind": kind, "when": _when(data.get("when", {}))}
    if kind == "choice":
        for key in ("log", "step"):
            if key in data:
                raise ConfigError(f"{key} does not go with choice; use int or float, or remove it")
    if isinstance(data.get("choice"), dict):
        if "sets" in data:
            raise ConfigError(
                "sets does not go with a choice of bundles, which say themselves "
                "what they set; remove it"
            )
        bundles = _bundles(data["choice"])
        return Dimension(**common, choices=tuple(bundles), bundles=bundles)
    common["sets"] = str(data.get("sets", name))
    if kind == "choice":
        return Dimension(**common, choices=_choices(data["choice"]))
    low, high = _bounds(kind, data[kind])
    log, step = data.get("log", False), data.get("step")
    if not isinstance(log, bool):
        raise ConfigError(f"log: {log!r} must be true or false")
    if log and low <= 0:
        raise ConfigError(f"the lower bound {low} must be above 0 on a log scale")
    if step is not None:
        if log:
            raise ConfigError("step does not go with log; leave one of them out")
        if not _number(step) or step <= 0 or (kind == "int" and not isinstance(step, int)):
            raise ConfigError(
                f"step: {step!r} must be a {'whole ' if kind == 'int' else ''}number above 0"
            )
        count = (high - low) / step
        if abs(count - round(count)) > 1e-9:
            raise ConfigError(
                f"step: {step} does not lead from {low} to {high}; change a bound or the step"
            )
    return Dimension(**common, low=low, high=high, log=log, step=step)


def _choices(values) -> tuple[Value, ...]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"choice: {values!r} must be a list with at least one value")
    for index, value in enumerate(values):
        if not isinstance(value, (bool, int, float, str)):
            raise ConfigError(
                f"choice: {value!r} must be a single word, number, true or false; "
                "levels are written as P3-P5"
            )
        if _among(value, tuple(values[:index])):
            raise ConfigError(f"choice: {value!r} stands twice; remove one")
    return tuple(values)


def _bundles(choice: dict) -> dict[str, Settings]:
    for name, settings in choice.items():
        if not isinstance(name, str):
            raise ConfigError(f"choice: the name {name!r} of a bundle must be a word")
        if not isinstance(settings, dict) or not settings:
            raise ConfigError(
                f"choice: {name}: {settings!r} must be a mapping of places to their "
                "values, such as {head.score: sigmoid, head.shared: true}"
            )
    if not choice:
        raise ConfigError("choice: {} must have at least one bundle")
    return {name: dict(settings) for name, settings in choice.items()}


def _bounds(kind: str, bounds) -> tuple[Value, Value]:
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(map(_number, bounds)):
        raise ConfigError(f"{kind}: {bounds!r} must be two numbers, [lowest, highest]")
    if kind == "int" and not all(isinstance(b, int) for b in bounds):
        raise ConfigError(f"int: {bounds!r} must be whole numbers; use float for others")
    low, high = (float(b) if kind == "float" else b for b in bounds)
    if low > high:
        raise ConfigError(f"{kind}: the lowest, {low}, is above the highest, {high}; swap them")
    return low, high


def _when(conditions) -> dict[str, tuple[Value, ...]]:
    if not isinstance(conditions, dict):
        raise ConfigError(
            f"when: {conditions!r} must be a mapping, such as {{backbone.kind: resnet}}"
        )
    result = {}
    for name, values in conditions.items():
        result[str(name)] = tuple(values) if isinstance(values, list) else (values,)
        if not result[str(name)]:
            raise ConfigError(f"when: {name} has no values; give at least one")
    return result


def _number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _among(value, values: tuple) -> bool:
    """`value in values`, with true and 1 told apart."""
    return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)
