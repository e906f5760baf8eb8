"""One thing that a space varies: its values, its scale, and when it is varied at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from detector.base.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = bool | int | float | str
Settings = Mapping[str, Any]
"""Values by setting, such as "neck.width" (see `resolve`); in a bundle they may be lists."""
Params = dict[str, Value]
KINDS = ("choice", "int", "float")
_KEYS = (*KINDS, "log", "step", "when", "sets")
MAX_CHOICES = 1_000
"""Values of a choice or of a condition."""
MAX_VALUES = 100_000
"""Values of an int, or of a float with a step."""
_STEP_TOLERANCE = 1e-9
"""Of a step: what a value may be off the grid by."""


class Trial(Protocol):
    """What `suggest` asks for values: an Optuna trial, or anything with these methods of one."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """A name with the values it may take.

    A `choice` of numbers in ascending order is ordinal: samplers see the indices of its values.
    """

    name: str
    sets: str | None = None
    """The setting that takes its value; several dimensions may share one under different
    conditions. None means a choice of bundles."""
    kind: str
    """One of KINDS."""
    choices: tuple[Value, ...] = ()
    """The values, or the names of the bundles."""
    bundles: Mapping[str, Settings] = field(default_factory=dict)
    """Name of each bundle → its settings, several at once."""
    low: float = 0
    high: float = 0
    """Bounds of an int or a float, both included."""
    log: bool = False
    step: float | None = None
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """Active only where each named dimension is active and has one of these values."""

    @property
    def targets(self) -> dict[str, tuple[Value, ...]]:
        """Each setting that it determines → the names of the bundles that do; empty where all of
        its values do."""
        if self.sets is not None:
            return {self.sets: ()}
        bundles_by_setting: dict[str, tuple[Value, ...]] = {}
        for name, settings in self.bundles.items():
            for setting in settings:
                bundles_by_setting[setting] = (*bundles_by_setting.get(setting, ()), name)
        return bundles_by_setting

    @property
    def shapes_design(self) -> bool:
        """Whether it varies what gets built, not only how that is trained."""
        return not all(setting.startswith("recipe.") for setting in self.targets)

    def settings(self, value: Value) -> Settings:
        """The settings that follow from this value."""
        return self.bundles[str(value)] if self.sets is None else {self.sets: value}

    def active(self, params: Mapping[str, Value]) -> bool:
        """Whether its conditions hold for these parameters."""
        return all(is_one_of(params.get(name), values) for name, values in self.when.items())

    @cached_property
    def ordered(self) -> bool:
        """Whether it is a choice of ascending numbers."""
        return (
            self.kind == "choice"
            and len(self.choices) > 1
            and not any(isinstance(c, (bool, str)) for c in self.choices)
            and list(self.choices) == sorted(self.choices)
        )

    def suggest(self, trial: Trial) -> Value:
        """A value drawn from the trial."""
        if self.ordered:
            return self.choices[trial.suggest_int(self.name, 0, len(self.choices) - 1)]
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.kind == "int":
            low, high, step = self._int_range()
            return trial.suggest_int(self.name, low, high, step=step, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def to_internal(self, value: Value) -> Value:
        """The trial's answer from which `suggest` makes `value`: an index if it is ordered."""
        return self.choices.index(value) if self.ordered else value

    def distribution(self, internal: bool = False) -> BaseDistribution:
        """Optuna's distribution of the values, or of the trial's answers (`to_internal`)."""
        return self._internal_distribution if internal and self.ordered else self._distribution

    @cached_property
    def _internal_distribution(self) -> BaseDistribution:
        """Of an ordered choice: of its indices."""
        from optuna.distributions import IntDistribution

        return IntDistribution(0, len(self.choices) - 1)

    @cached_property
    def _distribution(self) -> BaseDistribution:
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            low, high, step = self._int_range()
            return IntDistribution(low, high, log=self.log, step=step)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def _int_range(self) -> tuple[int, int, int]:
        """Bounds and step of an int, which YAML gives as whole numbers."""
        return int(self.low), int(self.high), int(self.step or 1)

    def find(self, given) -> Value | None:
        """Its value that equals `given` up to rounding errors, which the steps of a float have
        (0.1 + 2 × 0.1 is above 0.3); None if there is none, also if `given` is of another type."""
        if self.kind == "choice":
            return next((choice for choice in self.choices if is_one_of(given, (choice,))), None)
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            return None
        step = self.step or (1 if self.kind == "int" else None)
        if step is None:
            return float(given) if self.low <= given <= self.high else None
        slack = _STEP_TOLERANCE * step
        if not self.low - slack <= given <= self.high + slack:
            return None
        index = round((given - self.low) / step)
        value = grid_value(self.low, self.high, step, index)
        return value if abs(given - value) <= slack else None

    def has(self, value) -> bool:
        """Whether it may take this value."""
        return self.find(value) is not None

    def values(self) -> tuple[Value, ...] | None:
        """All values; None if they are continuous."""
        if self.kind == "choice":
            return self.choices
        if self.kind == "float" and self.step is None:
            return None
        step = self.step or 1
        count = math.floor((self.high - self.low) / step + _STEP_TOLERANCE) + 1
        return tuple(grid_value(self.low, self.high, step, index) for index in range(count))

    def extremes(self) -> tuple[Value, ...]:
        """Every choice, or both bounds: the values that are checked when a space is read."""
        return self.choices if self.kind == "choice" else (self.low, self.high)


def grid_value(low: float, high: float, step: float, index: int) -> float:
    """The value `index` steps above `low`, with the bits that Optuna gives it: rounding errors do
    not lead beyond `high`."""
    return min(low + step * index, high)


def enumerate_params(
    dimensions: Iterable[Dimension], limit: int | None = None
) -> list[Params] | None:
    """The parameters of all possible draws, in the order of the values.

    None if a dimension is continuous, or there are more than `limit`.
    """
    combinations: list[Params] = [{}]
    for dimension in dimensions:
        values = dimension.values()
        if values is None:
            return None
        combinations = [
            params | extension
            for params in combinations
            for extension in (
                [{dimension.name: value} for value in values] if dimension.active(params) else [{}]
            )
        ]
        if limit is not None and len(combinations) > limit:
            return None
    return combinations


def parse(name: str, data) -> Dimension:
    """A dimension from its YAML entry, such as `{int: [1, 4], when: {backbone.kind: resnet}}`.

    Raises:
        ConfigError: a broken rule and its way out, without the dimension's name.
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
    kind, when = kinds[0], _when(data.get("when", {}))
    return _choice(name, data, when) if kind == "choice" else _range(name, kind, data, when)


def _choice(name: str, data: dict, when: dict[str, tuple[Value, ...]]) -> Dimension:
    for key in ("log", "step"):
        if key in data:
            raise ConfigError(f"{key} does not go with choice; use int or float, or remove it")
    if not isinstance(data["choice"], dict):
        choices, sets = _choices(data["choice"]), str(data.get("sets", name))
        return Dimension(name=name, sets=sets, kind="choice", choices=choices, when=when)
    if "sets" in data:
        raise ConfigError(
            "sets does not go with a choice of bundles, each of which lists its settings; remove it"
        )
    bundles = _bundles(data["choice"])
    return Dimension(name=name, kind="choice", choices=tuple(bundles), bundles=bundles, when=when)


def _range(name: str, kind: str, data: dict, when: dict[str, tuple[Value, ...]]) -> Dimension:
    low, high = _bounds(kind, data[kind])
    log, step = data.get("log", False), data.get("step")
    if not isinstance(log, bool):
        raise ConfigError(f"log: {log!r} must be true or false")
    if log and low <= 0:
        raise ConfigError(f"the lower bound {low} must be above 0 on a log scale")
    if step is not None:
        if log:
            raise ConfigError("step does not go with log; leave one of them out")
        if not _is_number(step) or step <= 0 or (kind == "int" and not isinstance(step, int)):
            raise ConfigError(
                f"step: {step!r} must be a {'whole ' if kind == 'int' else ''}number above 0"
            )
        count = (high - low) / step
        if not math.isfinite(count) or abs(count - round(count)) > _STEP_TOLERANCE:
            raise ConfigError(
                f"step: {step} does not lead from {low} to {high}; change a bound or the step"
            )
    if (kind == "int" or step is not None) and (high - low) / (step or 1) >= MAX_VALUES:
        raise ConfigError(
            f"{kind}: {[low, high]} has more than {MAX_VALUES:,} values; change a bound or "
            + ("the step" if step else "give a step")
        )
    sets = str(data.get("sets", name))
    return Dimension(
        name=name, sets=sets, kind=kind, low=low, high=high, log=log, step=step, when=when
    )


def _choices(values) -> tuple[Value, ...]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"choice: {values!r} must be a list with at least one value")
    if len(values) > MAX_CHOICES:
        raise ConfigError(
            f"choice: {len(values):,} values; at most {MAX_CHOICES:,} are allowed: use int or float"
        )
    for index, value in enumerate(values):
        if not isinstance(value, (bool, int, float, str)):
            raise ConfigError(
                f"choice: {value!r} must be a single word, number, true or false; "
                "levels are written as P3-P5"
            )
        if is_one_of(value, values[:index]):
            raise ConfigError(f"choice: {value!r} is listed twice; remove one")
    return tuple(values)


def _bundles(choice: dict) -> dict[str, Settings]:
    for name, settings in choice.items():
        if not isinstance(name, str):
            raise ConfigError(f"choice: the name {name!r} of a bundle must be a word")
        if not isinstance(settings, dict) or not settings:
            raise ConfigError(
                f"choice: {name}: {settings!r} must be a mapping of settings to their "
                "values, such as {head.score: sigmoid, head.shared: true}"
            )
    if not choice:
        raise ConfigError("choice: {} must have at least one bundle")
    return {name: dict(settings) for name, settings in choice.items()}


def _bounds(kind: str, bounds) -> tuple[float, float]:
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(map(_is_number, bounds)):
        raise ConfigError(f"{kind}: {bounds!r} must be two numbers, [lowest, highest]")
    if kind == "int" and not all(isinstance(b, int) for b in bounds):
        raise ConfigError(f"int: {bounds!r} must be whole numbers; use float for others")
    low, high = (float(b) if kind == "float" else b for b in bounds)
    if low > high:
        raise ConfigError(f"{kind}: the lowest, {low}, is above the highest, {high}; swap them")
    if not math.isfinite(high - low):
        raise ConfigError(f"{kind}: {bounds!r} are too far apart for the numbers in between")
    return low, high


def _when(conditions) -> dict[str, tuple[Value, ...]]:
    if not isinstance(conditions, dict):
        raise ConfigError(
            f"when: {conditions!r} must be a mapping, such as {{backbone.kind: resnet}}"
        )
    values_by_name = {}
    for name, values in conditions.items():
        values_by_name[str(name)] = tuple(values) if isinstance(values, list) else (values,)
        if not values_by_name[str(name)]:
            raise ConfigError(f"when: {name} has no values; give at least one")
        if len(values_by_name[str(name)]) > MAX_CHOICES:
            raise ConfigError(
                f"when: {name} has {len(values_by_name[str(name)]):,} values; at most "
                f"{MAX_CHOICES:,} are allowed"
            )
    return values_by_name


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_one_of(value, values: Sequence[Value]) -> bool:
    """`value in values`, where true and 1 differ."""
    return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)
