"""A search space: read from YAML, asked for parameters, resolved into configurations.

Imports nothing heavy; Optuna only where its distributions are asked for. `python -m nas.space`
tells what a space holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from detector.base.errors import ConfigError, UserError
from detector.base.yaml_file import Document, read
from detector.config.detector import Detector
from detector.config.presets import PRESETS, section
from detector.config.recipe import Recipe
from nas.search_space.dimensions import Dimension, Params, Value
from nas.search_space.mac_budget import Budget
from nas.search_space.random_trial import RandomTrial
from nas.search_space.resolve import resized, resolve
from nas.search_space.yaml_parts import (
    PROMOTE,
    all_conditions,
    check_keys,
    read_baseline,
    read_budget,
    read_constraints,
    read_dimensions,
    read_rungs,
)
from trials.constraints import Constraints
from trials.objective import Objective

SPACES = PRESETS.parent

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
    """With a budget also its bounds."""
    budget: Budget | None = None
    """What all designs cost; their backbone.width follows from it."""

    @classmethod
    def load(cls, path: Path | str, budget: float | None = None) -> SearchSpace:
        """The space in a YAML file.

        Args:
            budget: MACs in place of those of the file's own budget.

        Raises:
            UserError: a rule is broken; names the file, the line, the key, and the way out. Or a
                `budget` for a space that has none.
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
        synthetic = document.data.get("proxy_synthetic") or {}
        if not isinstance(synthetic, dict) or "epochs" in synthetic:
            raise document.error(
                ("proxy_synthetic",),
                "must be a mapping of the proxy's keys that "
                "differ, without epochs: the rungs are the same",
            )
        eta = document.data.get("eta", 3)
        if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not eta > 1:
            raise document.error(("eta",), f"{eta!r} must be a number above 1, such as 3")
        promote = document.data.get("promote", PROMOTE[0])
        if promote not in PROMOTE:
            raise document.error(("promote",), f"{promote!r} is not one of {', '.join(PROMOTE)}")
        name = document.data["name"]
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise document.error(
                ("name",),
                f"{name!r} must be letters, digits, dash and "
                "underscore; studies are named after it",
            )
        met = read_budget(document, budget)
        space = cls(
            name=name,
            path=document.path,
            base=read_baseline(document, met),
            proxy=proxy,
            rungs=rungs,
            eta=eta,
            promote=promote,
            dimensions=read_dimensions(document),
            budget=met,
            proxy_synthetic=section(document, "proxy_synthetic", Recipe, proxy.to_dict()),
            objective=section(document, "objective", Objective, {}),
            constraints=read_constraints(document, met),
        )
        space._try_out(document)
        return space

    def on(self, data) -> SearchSpace:
        """The space with the proxy that fits the data (a `detector.data.Data`)."""
        return replace(self, proxy=self.proxy_synthetic) if data.root is None else self

    @property
    def baseline(self) -> tuple[Detector, Recipe]:
        """The yardstick: the preset's design under this space's proxy recipe."""
        return self.base, self.proxy

    @property
    def measures_latency(self) -> bool:
        """Whether the score or a cap asks for the latency of each design."""
        return self.objective.metric == "latency_ms" or self.constraints.max_latency_ms is not None

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
        settings = self._settings(params)
        try:
            detector, recipe = resolve(self.base, self.proxy, settings)
            if self.budget is not None:
                detector = self.budget.meet(
                    lambda width: resized(self.base, settings, detector, width)
                )
        except ConfigError as error:
            raise UserError(f"{self.path}: {error}; drawn with {_text(params)}") from error
        return detector, recipe

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
        """How many designs it has at most (some may resolve to the same, some miss a budget);
        recipes do not count.

        None where a design's dimension is continuous.
        """
        counted = self.design_dimensions()
        parents = [d for d in counted if any(d.name in other.when for other in counted)]
        others = [d for d in counted if d not in parents]
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

    def design_dimensions(self) -> list[Dimension]:
        """Those that shape designs, or decide whether such ones are active."""
        found: list[Dimension] = []
        for dimension in reversed(self.dimensions):
            if dimension.shapes_design or any(dimension.name in d.when for d in found):
                found.insert(0, dimension)
        return found

    def _settings(self, params: Mapping) -> dict[str, object]:
        """What parameters fill in, by place."""
        return {
            place: value
            for d in self._active(params)
            for place, value in d.settings(params[d.name]).items()
        }

    def _active(self, params: Mapping) -> list[Dimension]:
        """The dimensions of these parameters, whose names and values are checked."""
        active = [d for d in self.dimensions if d.active(params)]
        names = {d.name for d in active}
        wrong = [f"{name} is missing" for name in sorted(names - set(params))] + [
            f"{name} is not active or unknown" for name in sorted(set(params) - names)
        ]
        wrong = wrong or [
            f"{d.name} cannot be {params[d.name]!r}" for d in active if not d.has(params[d.name])
        ]
        if wrong:
            raise UserError(
                f"{self.path}: the parameters {_text(params)} do not fit this space: "
                f"{wrong[0]}; use the space they were drawn from"
            )
        return active

    def _try_out(self, document: Document) -> None:
        """Resolve some draws, and alone each value that no good draw had, so that a mistake shows
        before a search."""
        rng = RandomTrial("try out")
        unbound = replace(self, budget=None)  # rules do not depend on how wide a backbone is
        good, bad = set(), None
        for _ in range(_TRIED):
            params = self.suggest(rng)
            try:
                unbound.resolve(params)
                good |= set(params.items())
            except UserError as error:
                bad = bad or error
        by_name = {d.name: d for d in self.dimensions}
        for dimension in self.dimensions:
            for value in dimension.ends():
                if (dimension.name, value) not in good:
                    self._try_alone(dimension, value, by_name, document)
        if bad:
            raise bad

    def _try_alone(
        self,
        dimension: Dimension,
        value: Value,
        by_name: Mapping[str, Dimension],
        document: Document,
    ) -> None:
        """UserError with the line of a value that does not go with the baseline."""
        settings: dict[str, object] = {}
        for name, values in all_conditions(dimension, by_name).items():
            settings |= by_name[name].settings(values[0])  # what makes it active
        settings |= dimension.settings(value)
        try:
            resolve(self.base, self.proxy, settings)
        except ConfigError as error:
            inside = ("choice", str(value)) if dimension.bundles else ()
            raise document.error(
                ("dimensions", dimension.name, *inside), f"{value!r} does not fit: {error}"
            ) from error


def _text(params: Mapping) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items()) or "(none)"
