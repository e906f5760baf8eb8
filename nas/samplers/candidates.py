"""Designs that a sampler chooses from: all of a small space, else random draws and mutations of the
front, feasible ones that no trial has."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.statistics.pareto import dominated
from detector.config.detector import arch_hash
from nas.samplers.features import features
from nas.search_space.dimensions import Params, Trial, Value, enumerate_params
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.record import Cost, TrialRecord, identity_of

CANDIDATES = 200
MUTANT_SHARE = 0.5
"""Share of the candidates that are mutations of the front; the others are random draws."""
MAX_DRAWS = 10 * CANDIDATES
"""Draws after which fewer candidates will do, as many are infeasible or known."""
ENUMERATION_LIMIT = 500
"""In a space of at most so many designs all are candidates."""
CACHE_SIZE = 10_000
"""Candidates whose cost and features are kept."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    params: Params
    identity: str
    """As `TrialRecord.identity`."""
    feasible: bool
    features: dict[str, float]
    """As `nas.samplers.features.features`."""
    cost: Cost


class Candidates:
    """The candidates of a space; keeps what it derives from parameters and records."""

    def __init__(self, space: SearchSpace):
        self._space = space
        self._all_params = enumerate_params(space.dimensions, ENUMERATION_LIMIT)
        self._features_of: dict[str, dict[str, float]] = {}  # by identity of records
        self._candidate_of: dict[tuple, Candidate] = {}  # by parameters

    def features(self, record: TrialRecord) -> dict[str, float]:
        identity = record.identity
        if identity not in self._features_of:
            self._features_of[identity] = features(record.detector, record.recipe, record.cost)
        return self._features_of[identity]

    def unknown(
        self, identities: set[str], parents: Sequence[TrialRecord], rng: random.Random
    ) -> list[Candidate]:
        """Different feasible designs whose identities are not among `identities`.

        Args:
            parents: trials whose parameters are mutated.
        """
        candidates: dict[str, Candidate] = {}
        for params in self._all_params or self._draws(parents, rng):
            candidate = self._candidate(params)
            if candidate.feasible and candidate.identity not in identities:
                candidates[candidate.identity] = candidate
            if self._all_params is None and len(candidates) >= CANDIDATES:
                break
        return list(candidates.values())

    def _draws(self, parents: Sequence[TrialRecord], rng: random.Random) -> Iterator[Params]:
        for _ in range(MAX_DRAWS):
            trial: Trial = RandomTrial(rng.getrandbits(64))
            if parents and rng.random() < MUTANT_SHARE:
                parent = self._space.to_internal(rng.choice(parents).params)
                trial = Mutation(parent, rng.getrandbits(64))
            yield self._space.suggest(trial)

    def _candidate(self, params: Params) -> Candidate:
        key = tuple(params.items())
        if key not in self._candidate_of:
            if len(self._candidate_of) >= CACHE_SIZE:
                self._candidate_of.clear()
            detector, recipe = self._space.resolve(params)
            cost = Cost.of(detector)
            self._candidate_of[key] = Candidate(
                params=params,
                identity=identity_of(arch_hash(detector), recipe),
                feasible=self._space.constraints.violated_cap(cost) is None,
                features=features(detector, recipe, cost),
                cost=cost,
            )
        return self._candidate_of[key]


def front(trained: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The sampled trials that none of at least their budget dominates in accuracy and speed."""
    sampled = [
        (r, r.last_evaluation) for r in trained if r.params and r.last_evaluation is not None
    ]
    points = [(last.accuracy_score, r.speed_score, last.epoch) for r, last in sampled]
    return [r for (r, _), lost in zip(sampled, dominated(np.array(points))) if not lost]


class Mutation:
    """A `nas.search_space.dimensions.Trial` with a parent's values, but for one or two dimensions.

    Args:
        parent: internal parameters (`SearchSpace.to_internal`); what they lack (another branch of
            the space) is drawn at random.
    """

    def __init__(self, parent: Mapping[str, Value], seed: int):
        self._parent, self._random = parent, RandomTrial(seed)
        rng = random.Random(seed)
        names = sorted(parent)
        self._mutated = set(rng.sample(names, min(rng.choice((1, 1, 2)), len(names))))

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        return self._inherit(name, lambda: self._random.suggest_categorical(name, choices))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return self._inherit(
            name, lambda: self._random.suggest_int(name, low, high, step=step, log=log)
        )

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._inherit(
            name, lambda: self._random.suggest_float(name, low, high, step=step, log=log)
        )

    def _inherit(self, name: str, draw: Callable[[], Any]) -> Any:
        return draw() if name in self._mutated or name not in self._parent else self._parent[name]
