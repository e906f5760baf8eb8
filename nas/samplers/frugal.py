"""`frugal`: cost is exact, so only accuracy is modelled, and trials at every rung count.

A Gaussian process learns accuracy at the full budget over what gets built and how it is trained: of
a trial at a rung what that result foretells. A candidate's speed is known (measured latency:
expected). Of many legal candidates that no trial has, the one with the highest expected gain
(expected improvement, Jones et al. 1998) is proposed: gain in the score, or part of the time in a
random weighting of accuracy and speed, which serves the front.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from analysis.pareto import dominated
from detector.config.detector import arch_hash
from nas.samplers.expected_latency import expected_costs
from nas.samplers.features import features, matrix
from nas.samplers.gaussian_process import GaussianProcess, at_full_budget
from nas.search_space.dimensions import Params, every_design
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.record import Cost, Status, TrialRecord, identity_of

CANDIDATES = 200
MUTANTS = 0.5
"""Share of the candidates that are mutations of the front, the others being drawn by chance."""
FOR_THE_FRONT = 0.3
"""Share of proposals under a random weighting."""
TRIES = 10
"""Draws for each candidate that is wanted, where many are infeasible or known."""
LISTED = 500
"""Of a space with at most so many designs all are candidates."""
REMEMBERED = 10_000
"""Designs whose cost and features are kept."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    params: Params
    identity: str
    """As `TrialRecord.identity`."""
    legal: bool
    numbers: dict[str, float]
    """As `nas.samplers.features.features`."""
    cost: Cost


class Frugal:
    """A `nas.samplers.proposer.Sampler`."""

    def __init__(self, space: SearchSpace):
        self._space = space
        self._known: dict[str, dict[str, float]] = {}  # features by identity
        self._all = every_design(space.dimensions, LISTED)
        self._candidate_of: dict[tuple, Candidate] = {}  # by parameters

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        chance = random.Random(seed)
        tried = [
            record
            for record in records
            if record.status is not Status.FAILED and self._results(record)
        ]
        known = {record.identity for record in records}
        candidates = self._candidates(known, self._front(tried), chance)
        if not candidates:  # the gate knows what to do with one that is known
            return self._space.suggest(RandomTrial(seed))

        table = matrix(
            [self._features(record) for record in tried]
            + [candidate.numbers for candidate in candidates]
        )
        values = at_full_budget([self._results(record) for record in tried])
        model = GaussianProcess(table[: len(tried)], values, np.random.default_rng(seed))
        mean, spread = model.predict(table)
        costs = expected_costs([c.cost for c in candidates], [r.cost for r in tried])
        speed = np.array(
            [r.speed_score for r in tried]
            + [self._space.objective.speed_score(cost) for cost in costs]
        )
        weight = 2 / 3  # the score's: speed + 2 × accuracy
        if chance.random() < FOR_THE_FRONT:
            weight = chance.random()
        value, spread = weight * mean + (1 - weight) * speed, weight * spread
        best = value[: len(tried)].max()
        gain = _expected_gain(value[len(tried) :], spread[len(tried) :], best)
        return candidates[int(np.argmax(gain))].params

    def _results(self, record: TrialRecord) -> dict[int, float]:
        """Accuracy by epoch, at the rungs and at the last look: what was seen on the way there
        tells little more."""
        return {
            epoch.epoch: epoch.accuracy_score
            for epoch in record.epochs
            if epoch is record.evaluated
            or (epoch.ap is not None and epoch.epoch in self._space.rungs)
        }

    def _candidates(
        self, known: set[str], parents: Sequence[TrialRecord], chance: random.Random
    ) -> list[Candidate]:
        """Different legal designs that no trial has."""
        found: dict[str, Candidate] = {}
        for params in self._all or self._drawn(parents, chance):
            candidate = self._weighed(params)
            if candidate.legal and candidate.identity not in known:
                found[candidate.identity] = candidate
            if self._all is None and len(found) >= CANDIDATES:
                break
        return list(found.values())

    def _drawn(self, parents: Sequence[TrialRecord], chance: random.Random) -> Iterator[Params]:
        for _ in range(TRIES * CANDIDATES):
            trial = RandomTrial(chance.getrandbits(64))
            if parents and chance.random() < MUTANTS:
                parent = self._space.coded(chance.choice(parents).params)
                trial = Mutation(parent, chance.getrandbits(64))
            yield self._space.suggest(trial)

    def _weighed(self, params: Params) -> Candidate:
        key = tuple(params.items())
        if key not in self._candidate_of:
            if len(self._candidate_of) >= REMEMBERED:
                self._candidate_of.clear()
            detector, recipe = self._space.resolve(params)
            cost = Cost.of(detector)
            self._candidate_of[key] = Candidate(
                params=params,
                identity=identity_of(arch_hash(detector), recipe),
                legal=self._space.constraints.broken(cost) is None,
                numbers=features(detector, recipe, cost),
                cost=cost,
            )
        return self._candidate_of[key]

    def _front(self, tried: Sequence[TrialRecord]) -> list[TrialRecord]:
        """What no other trial of at least its budget beats in accuracy and speed."""
        tried = [r for r in tried if r.params]
        points = [(r.accuracy_score, r.speed_score, r.evaluated.epoch) for r in tried]
        return [r for r, beaten in zip(tried, dominated(np.array(points))) if not beaten]

    def _features(self, record: TrialRecord) -> dict[str, float]:
        identity = record.identity
        if identity not in self._known:
            self._known[identity] = features(record.detector, record.recipe, record.cost)
        return self._known[identity]


class Mutation:
    """Answers `SearchSpace.suggest` as a parent did, but for one or two dimensions.

    Args:
        parent: coded parameters; what it lacks (another branch of the space) is drawn by chance.
    """

    def __init__(self, parent: Mapping, seed: int):
        self._parent, self._fresh = parent, RandomTrial(seed)
        chance = random.Random(seed)
        names = sorted(parent)
        self._changed = set(chance.sample(names, min(chance.choice((1, 1, 2)), len(names))))

    def suggest_categorical(self, name: str, choices):
        return self._kept(name, lambda: self._fresh.suggest_categorical(name, choices))

    def suggest_int(self, name: str, low: int, high: int, **scale) -> int:
        return self._kept(name, lambda: self._fresh.suggest_int(name, low, high, **scale))

    def suggest_float(self, name: str, low: float, high: float, **scale) -> float:
        return self._kept(name, lambda: self._fresh.suggest_float(name, low, high, **scale))

    def _kept(self, name: str, draw):
        return draw() if name in self._changed or name not in self._parent else self._parent[name]


def _expected_gain(mean: np.ndarray, spread: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement over `best` of normal variables, float [N]."""
    ahead = (mean - best) / spread
    return spread * (ahead * ndtr(ahead) + np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi))
