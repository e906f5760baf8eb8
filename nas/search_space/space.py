"""A search space: read from YAML, sampled for parameters, resolved into configurations.

No heavy imports; Optuna alone, by the functions that return its distributions. `python -m
nas.space` shows what a space contains.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import ConfigError, UserError
from detector.base.yaml_file import Document, read
from detector.config.detector import Detector
from detector.config.presets import PRESETS, section
from detector.config.recipe import Recipe
from nas.search_space.dimensions import Dimension, Params, Settings, Trial, Value
from nas.search_space.mac_budget import Budget
from nas.search_space.random_trial import RandomTrial
from nas.search_space.resolve import resolve, with_backbone_width
from nas.search_space.yaml_parts import (
    PROMOTE,
    all_conditions,
    check_keys,
    check_neck_with_budget,
    read_baseline,
    read_budget,
    read_constraints,
    read_dimensions,
    read_long_proxies,
    read_proxy_changes,
    read_rungs,
)
from trials.constraints import Constraints
from trials.objective import Objective

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SPACES = PRESETS.parent

SHORT, LONG = "short", "long"
"""Kinds of proxies: of a minute or two on a core, and those for GPUs."""

MAX_NAME = 100
"""Characters of a space's name; most file systems allow 255 for that of a study's folder."""
NAME = rf"[A-Za-z0-9_][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}"
_MAX_BRANCHES = 100_000
"""Combinations of parents that are counted one by one, see `size`."""
_CHECKED_DRAWS = 100  # random draws that are resolved when a space is loaded


def has_growth(drawn: bool, proxies: str) -> bool:
    """Whether an objective's growth holds: it is that of short proxies on photographs.

    Args:
        drawn: whether the images are the built-in scenes.
        proxies: `SHORT` or `LONG`.
    """
    return not drawn and proxies == SHORT


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What a search varies, and how each design is trained and compared."""

    name: str
    path: Path
    dimensions: tuple[Dimension, ...]
    """In the file's order; conditions refer to earlier dimensions only."""
    base: Detector
    """The baseline's design; designs have its values where no dimension varies them."""
    proxy: Recipe
    """How all trials are trained, except for what dimensions vary."""
    proxy_synthetic: Recipe
    """The proxy for the built-in scenes, which are smaller than photographs."""
    proxy_long: Recipe | None = None
    """The proxy for GPUs, which have the time for trainings that are close to full ones."""
    rungs: tuple[int, ...]
    """Epochs at which a trial may be paused, ascending; the last one is the full budget."""
    rungs_long: tuple[int, ...] = ()
    """Those of the long proxies."""
    eta: float
    """A trial is promoted from a rung when it is among the best 1/eta there."""
    promote: str
    """`score`: only then; `front`: also when no trial at its rung dominates it in accuracy and
    speed."""
    objective: Objective
    """How accuracy and cost give a score, which a search looks for the highest of."""
    constraints: Constraints
    """Including the bounds of the budget, if there is one."""
    budget: Budget | None = None
    """MACs that all designs have; their backbone.width follows from it."""

    @classmethod
    def load(cls, path: Path | str, budget: float | None = None) -> SearchSpace:
        """The space in a YAML file.

        Args:
            budget: MACs that replace those of the file's own budget.

        Raises:
            UserError: a broken rule, with file, line, key and way out; or a `budget` for a space
                that has none.
        """
        document = read(Path(path))
        check_keys(document)
        rungs = read_rungs(document)
        proxy = section(document, "proxy", Recipe, {"epochs": rungs[-1]})
        if proxy.epochs != rungs[-1]:
            raise document.error(
                ("rungs",),
                f"{list(rungs)} must end at the proxy's epochs, {proxy.epochs}; change one of them",
            )
        proxy_synthetic = read_proxy_changes(document, "proxy_synthetic", proxy, proxy.epochs)
        proxy_long, rungs_long = read_long_proxies(document, proxy)
        section(document, "full", Recipe, proxy.to_dict())  # checked here, read by retrains
        eta = document.data.get("eta", 3)
        if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not eta > 1:
            raise document.error(("eta",), f"{eta!r} must be a number above 1, such as 3")
        promote = document.data.get("promote", PROMOTE[0])
        if promote not in PROMOTE:
            raise document.error(("promote",), f"{promote!r} is not one of {', '.join(PROMOTE)}")
        name = document.data["name"]
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise document.error(
                ("name",),
                f"{name!r} must be letters (a to z), digits, dash and underscore, not start with a "
                f"dash, and have at most {MAX_NAME} characters; studies are named after it",
            )
        mac_budget = read_budget(document, budget)
        space = cls(
            name=name,
            path=document.path,
            base=read_baseline(document, mac_budget),
            proxy=proxy,
            rungs=rungs,
            eta=eta,
            promote=promote,
            dimensions=read_dimensions(document),
            budget=mac_budget,
            proxy_synthetic=proxy_synthetic,
            proxy_long=proxy_long,
            rungs_long=rungs_long,
            objective=section(document, "objective", Objective, {}),
            constraints=read_constraints(document, mac_budget),
        )
        space._check_draws(document)
        return space

    def on(self, data, proxies: str = SHORT) -> SearchSpace:
        """The space with the proxy for these images (a `detector.data.Data`), and its rungs; with
        its growth of accuracy where that holds.

        Args:
            proxies: `SHORT`, or on photographs `LONG` if the space has them.
        """
        if has_growth(data.root is None, proxies):
            return self
        objective = replace(self.objective, growth=None)
        if data.root is None:
            return replace(self, proxy=self.proxy_synthetic, objective=objective)
        assert self.proxy_long is not None
        return replace(self, proxy=self.proxy_long, rungs=self.rungs_long, objective=objective)

    @property
    def baseline(self) -> tuple[Detector, Recipe]:
        """The design that a search is compared with, and this space's proxy recipe."""
        return self.base, self.proxy

    @property
    def measures_latency(self) -> bool:
        """Whether the score or a cap needs the latency of each design."""
        return self.objective.uses_latency or self.constraints.max_latency_ms is not None

    def suggest(self, trial: Trial) -> Params:
        """A draw: the names of the active dimensions and their values."""
        params: Params = {}
        for dimension in self.dimensions:
            if dimension.active(params):
                params[dimension.name] = dimension.suggest(trial)
        return params

    def resolve(self, params: Mapping[str, Value]) -> tuple[Detector, Recipe]:
        """The design and the recipe of some parameters; a pure function.

        Raises:
            UserError: they are not parameters of this space, or their combination breaks a rule.
        """
        settings = self._settings(params)
        try:
            detector, recipe = resolve(self.base, self.proxy, settings)
            if self.budget is not None:
                detector = self.budget.meet(
                    lambda width: with_backbone_width(self.base, settings, detector, width)
                )
        except ConfigError as error:
            raise UserError(f"{self.path}: {error}; drawn with {_text(params)}") from error
        return detector, recipe

    def distributions(
        self, params: Mapping[str, Value], internal: bool = False
    ) -> dict[str, BaseDistribution]:
        """Optuna's distributions of the active names, for stored trials.

        Args:
            params: of one draw; empty for a design that was not drawn.
            internal: distributions of the trial's answers (`to_internal`), not of the values.

        Raises:
            UserError: they are not parameters of this space.
        """
        if not params:
            return {}
        return {d.name: d.distribution(internal) for d in self._active(params)}

    def to_internal(self, params: Mapping[str, Value]) -> Params:
        """The trial's answers from which `suggest` makes these parameters: indices for ordered
        choices."""
        if not params:
            return {}
        return {d.name: d.to_internal(params[d.name]) for d in self._active(params)}

    def size(self) -> int | None:
        """Upper bound on the number of designs (some parameters resolve to the same design, some
        miss a budget); recipes do not count. With very many combinations of dimensions that others
        depend on, conditions do not count either.

        None if a dimension of the design is continuous.
        """
        dimensions = self.design_dimensions()
        values_of = {d.name: d.values() for d in dimensions}
        parents = [d for d in dimensions if any(d.name in other.when for other in dimensions)]
        others = [d for d in dimensions if d not in parents]
        parent_values = [values for d in parents if (values := values_of[d.name]) is not None]
        counts = {d.name: len(values) for d in others if (values := values_of[d.name]) is not None}
        if len(counts) < len(others):
            return None
        combinations = math.prod(map(len, parent_values))
        if combinations > _MAX_BRANCHES:
            return combinations * math.prod(counts.values())
        total = 0
        seen: set[tuple] = set()
        for combination in itertools.product(*parent_values):
            params: Params = {}
            for dimension, value in zip(parents, combination):
                if dimension.active(params):
                    params[dimension.name] = value
            branch = tuple(params.items())
            if branch not in seen:
                seen.add(branch)
                total += math.prod(counts[d.name] for d in others if d.active(params))
        return total

    def design_dimensions(self) -> list[Dimension]:
        """The dimensions that shape designs, and those on which their conditions depend."""
        selected: list[Dimension] = []
        for dimension in reversed(self.dimensions):
            if dimension.shapes_design or any(dimension.name in d.when for d in selected):
                selected.insert(0, dimension)
        return selected

    def _settings(self, params: Mapping[str, Value]) -> Settings:
        return {
            setting: value
            for d in self._active(params)
            for setting, value in d.settings(params[d.name]).items()
        }

    def _active(self, params: Mapping[str, Value]) -> list[Dimension]:
        """The dimensions of these parameters, whose names and values are checked."""
        active = [d for d in self.dimensions if d.active(params)]
        names = {d.name for d in active}
        errors = [f"{name} is missing" for name in sorted(names - set(params))] + [
            f"{name} is not active or unknown" for name in sorted(set(params) - names)
        ]
        errors = errors or [
            f"{d.name} cannot be {params[d.name]!r}" for d in active if not d.has(params[d.name])
        ]
        if errors:
            raise UserError(
                f"{self.path}: the parameters {_text(params)} do not fit this space: "
                f"{errors[0]}; use the space they were drawn from"
            )
        return active

    def _check_draws(self, document: Document) -> None:
        """Resolve some draws, and others with each value that no valid draw has, so that mistakes
        show before a search."""
        if self.budget is not None and not any("neck.kind" in d.targets for d in self.dimensions):
            try:
                check_neck_with_budget(self.base.neck.kind)
            except ConfigError as reason:
                raise document.error(("baseline",), str(reason)) from reason
        trial = RandomTrial("try out")
        valid: set[tuple[str, Value]] = set()
        first_error = None
        for _ in range(_CHECKED_DRAWS):
            params = self.suggest(trial)
            error = self._error(self._settings(params))
            if error is None:
                valid |= set(params.items())
            elif first_error is None:
                first_error = UserError(f"{self.path}: {error}; drawn with {_text(params)}")
        by_name = {d.name: d for d in self.dimensions}
        for dimension in self.dimensions:
            for value in dimension.extremes():
                if (dimension.name, value) in valid:
                    continue
                given = all_conditions(dimension, by_name) | {dimension.name: (value,)}
                # Where no draw is valid, most values are not to blame for that.
                error = self._error_in_draws(given) if valid else self._error_on_baseline(given)
                if error is not None:
                    inside = ("choice", str(value)) if dimension.bundles else ()
                    raise document.error(
                        ("dimensions", dimension.name, *inside), f"{value!r} does not fit: {error}"
                    ) from error
        if first_error:
            raise first_error

    def _error(self, settings: Settings) -> ConfigError | None:
        """Why settings do not resolve. The budget's width is not looked for, which takes long: no
        rule depends on it but that of the neck."""
        try:
            if self.budget is not None:
                check_neck_with_budget(settings.get("neck.kind", self.base.neck.kind))
            resolve(self.base, self.proxy, settings)
        except ConfigError as error:
            return error
        return None

    def _error_on_baseline(self, given: Mapping[str, tuple[Value, ...]]) -> ConfigError | None:
        """Why the baseline does not resolve with the first of each dimension's given values."""
        settings: dict[str, object] = {}
        for dimension in self.dimensions:
            if dimension.name in given:
                settings |= dimension.settings(given[dimension.name][0])
        return self._error(settings)

    def _error_in_draws(self, given: Mapping[str, tuple[Value, ...]]) -> ConfigError | None:
        """Why no draw with given values of some dimensions resolves; None if one of many does."""
        trial = RandomTrial("complete")
        errors: dict[str, ConfigError] = {}
        for _ in range(_CHECKED_DRAWS):
            params: Params = {}
            for dimension in self.dimensions:
                if not dimension.active(params):
                    continue
                if dimension.name in given:
                    params[dimension.name] = trial.suggest_categorical("", given[dimension.name])
                else:
                    params[dimension.name] = dimension.suggest(trial)
            error = self._error(self._settings(params))
            if error is None:
                return None
            errors.setdefault(str(error), error)
        # What is wrong with the baseline, too, is not due to the other values of a draw.
        return errors.get(str(self._error_on_baseline(given)), next(iter(errors.values())))


def _text(params: Mapping[str, Value]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items()) or "(none)"
