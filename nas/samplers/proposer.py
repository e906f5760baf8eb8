"""Proposes parameters: at random, or by a sampler that learns from the stored records.

A proposal is a function of the seed, the records and the attempt, so that a search that was
killed resumes with the same proposals.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from detector.base.errors import ConfigError, UserError
from detector.base.plugins import checked_new, plugin_faults
from nas.samplers.base import Decider, Sampler, informative_trials
from nas.search_space.dimensions import Params
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.record import TrialRecord

if TYPE_CHECKING:
    from nas.samplers.prior import Prior


@dataclass(frozen=True, kw_only=True)
class SamplerSpec:
    """When a sampler is asked, and where it is."""

    description: str
    """For --help."""
    module: str = ""
    class_name: str = ""
    """A `nas.samplers.base.Sampler`, imported when it is chosen; none means random draws."""
    startup_trials: int = 0
    """Trials with a result before it is asked; random draws until then."""
    max_attempts: int = 0
    """Attempts at one trial after which random draws replace a sampler that repeats itself: few
    where all attempts have the same model and look for its best."""

    promotes: bool = False
    """Whether it also chooses among paused trials, in place of successive halving."""
    uses_prior: bool = False
    """Whether it can start from what earlier studies say (`nas.samplers.prior`), its second
    argument."""
    of_plugin: Callable[[SearchSpace], Sampler] | None = None
    """A plugin's class, in place of `module` and `class_name`."""

    def is_asked(self, results: int) -> bool:
        """Whether it proposes the first attempt, once this many trials have a result."""
        return bool(self.module or self.of_plugin) and results >= self.startup_trials


_OPTUNA = "nas.samplers.optuna_samplers"
SAMPLERS = {
    "tpe": SamplerSpec(
        description="Optuna's tree-structured Parzen estimator of the score",
        module=_OPTUNA,
        class_name="Tpe",
        startup_trials=10,
        max_attempts=4,
    ),
    "random": SamplerSpec(description="uniform random draws"),
    "nsga2": SamplerSpec(
        description="Optuna's NSGA-II, a genetic algorithm for accuracy and speed",
        module=_OPTUNA,
        class_name="Nsga2",
        startup_trials=20,  # its first generation
        max_attempts=4,
    ),
    "gp": SamplerSpec(
        description="Optuna's Gaussian process of the score",
        module=_OPTUNA,
        class_name="GaussianProcess",
        startup_trials=10,
        max_attempts=1,
    ),
    "frugal": SamplerSpec(
        description="a Gaussian process of the accuracy alone, as cost is exact",
        module="nas.samplers.frugal",
        class_name="Frugal",
        startup_trials=6,
        max_attempts=1,
    ),
    "joint": SamplerSpec(
        description="a model of all learning curves, which also decides which trial goes on",
        module="nas.samplers.joint",
        class_name="Joint",
        max_attempts=1,
        promotes=True,
        uses_prior=True,
    ),
}
"""All samplers by name. A new one is a file with its class, and a row here; or a class of a plugin
(`register_sampler`)."""
DEFAULT = "frugal"
"""Needs the fewest epochs of those that are good on all judges (docs/samplers.md)."""


def register_sampler(
    name: str,
    *,
    description: str,
    startup_trials: int = 0,
    max_attempts: int = 1,
    promotes: bool = False,
) -> Callable[[type], type]:
    """Decorator: a plugin's class, a `nas.samplers.base.Sampler` (with `promotes` a `Decider`), as
    --sampler name. The other arguments are those of `SamplerSpec`.

    Raises:
        ConfigError: the name is taken.
    """
    checked_new("sampler", name, SAMPLERS)

    def register(sampler: type) -> type:
        SAMPLERS[name] = SamplerSpec(
            description=description,
            startup_trials=startup_trials,
            max_attempts=max_attempts,
            promotes=promotes,
            of_plugin=sampler,
        )
        return sampler

    return register


def sampler_help() -> str:
    """The help text of --sampler."""
    rows = "; ".join(f"{name}: {spec.description}" for name, spec in SAMPLERS.items())
    return f"how designs are proposed. {rows} (default: {DEFAULT})"


class Proposer:
    """Proposes parameters; keeps the records, and what its sampler caches, between calls.

    Args:
        sampler: one of SAMPLERS.
        prior: what earlier studies say, for a sampler that uses it.

    Raises:
        UserError: an unknown sampler.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: str = DEFAULT,
        *,
        seed: int = 0,
        prior: Prior | None = None,
    ):
        self.space, self.sampler, self.seed = space, sampler, seed
        self._sampler = _make(sampler, space, prior)
        self._records: Sequence[TrialRecord] = ()
        self._results = 0
        self._next_params: Params | None = None
        """What a decider has found better than any promotion."""

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Take all records of the study in their present state."""
        if records != self._records:
            self._next_params = None
        self._records = list(records)
        self._results = sum(r.last_evaluation is not None for r in informative_trials(records))

    @property
    def promotes(self) -> bool:
        """Whether `promotion` takes the place of successive halving."""
        return SAMPLERS[self.sampler].promotes

    def promotion(
        self, records: Sequence[TrialRecord], *, epochs: float, new: bool
    ) -> TrialRecord | None:
        """The paused trial to train next; None if a new design is better, or none may continue.

        Args:
            records: all records of the study in their present state.
            epochs: that paused trials may still be trained for.
            new: whether a new design can be sampled.
        """
        self.update(records)
        if new and self._results < SAMPLERS[self.sampler].startup_trials:
            return None
        trained = sum(len(record.epochs) for record in records)
        seed = _seed(f"{self.seed}/{len(records)}/{trained}")
        with self._faults():
            decider = cast(Decider, self._sampler)
            step = decider.next_step(records, seed, epochs=epochs, new=new)
        self._next_params = step.params
        return step.trial

    def ask(self, attempt: int = 0) -> Params:
        """Parameters for the next trial; another `attempt` gives others."""
        if attempt == 0 and self._next_params is not None:
            return self._next_params
        key, spec = f"{self.seed}/{len(self._records)}/{attempt}", SAMPLERS[self.sampler]
        if (
            self._sampler is None
            or attempt >= spec.max_attempts
            or self._results < spec.startup_trials
        ):
            return self.space.suggest(RandomTrial(key))
        with self._faults():
            params = self._sampler.ask(self._records, _seed(key))
            if spec.of_plugin:
                _check_params(self.space, params, self.sampler)
        return params

    def _faults(self) -> AbstractContextManager[None]:
        """Names a sampler of a plugin in the errors that it raises."""
        if SAMPLERS[self.sampler].of_plugin:
            return plugin_faults(f"sampler {self.sampler}")
        return nullcontext()


def _check_params(space: SearchSpace, params: Params, sampler: str) -> None:
    """Raises ConfigError unless the parameters are one value of each active dimension."""
    unknown = set(params) - {dimension.name for dimension in space.dimensions}
    if unknown:
        raise ConfigError(f"sampler {sampler}: gives {min(unknown)}, which is no dimension")
    for dimension in space.dimensions:
        name, active = dimension.name, dimension.active(params)
        if active != (name in params):
            verb = "lacks" if active else "gives the inactive"
            raise ConfigError(f"sampler {sampler}: {verb} {name} in {params}; mend the plugin")
        if active and not dimension.has(params[name]):
            raise ConfigError(
                f"sampler {sampler}: gives {name} {params[name]!r}, which the space does not have"
            )


def _seed(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")


def propose(space: SearchSpace, sampler: str, records: Sequence[TrialRecord], seed: int) -> Params:
    """One proposal, from stored records alone."""
    proposer = Proposer(space, sampler, seed=seed)
    proposer.update(records)
    return proposer.ask()


def _make(name: str, space: SearchSpace, prior: Prior | None) -> Sampler | None:
    """None means random draws. What a sampler needs is imported here, when it is chosen."""
    if name not in SAMPLERS:
        raise UserError(f"--sampler {name!r}: is not one of {', '.join(SAMPLERS)}")
    spec = SAMPLERS[name]
    if spec.of_plugin:
        with plugin_faults(f"sampler {name}"):
            return spec.of_plugin(space)
    if not spec.module:
        return None
    make = getattr(importlib.import_module(spec.module), spec.class_name)
    return make(space, prior) if spec.uses_prior else make(space)
