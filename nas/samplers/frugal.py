"""`frugal`: cost is exact, so only accuracy is modelled, and results of every rung count.

A Gaussian process models accuracy at the full budget over what gets built and how it is trained;
for a trial at a lower rung, the accuracy predicted from its result there. In a long study it is
fitted to some trials that stand for all. The speed of a candidate is known (measured latency:
estimated). Of many feasible candidates that no trial has, the one with the highest expected
improvement (Jones et al. 1998) is proposed: of the score, or, for a share of the proposals, of a
random weighting of accuracy and speed, which serves the front.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from analysis.statistics.pareto import dominated
from detector.config.detector import arch_hash
from nas.samplers.base import MAX_TRIALS, representative
from nas.samplers.expected_latency import expected_costs
from nas.samplers.features import features, matrix
from nas.samplers.gaussian_process import GaussianProcess, at_full_budget
from nas.search_space.dimensions import Params, Trial, Value, enumerate_params
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.record import Cost, Status, TrialRecord, identity_of

CANDIDATES = 200
MUTANT_SHARE = 0.5
"""Share of the candidates that are mutations of the front; the others are random draws."""
FRONT_SHARE = 0.3
"""Share of proposals under a random weighting."""
SCORE_WEIGHT = 2 / 3
"""Weight of accuracy in the score (`trials.record.combined_score`), speed having the rest."""
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


class Frugal:
    """A `nas.samplers.base.Sampler`."""

    def __init__(self, space: SearchSpace):
        self._space = space
        self._all_params = enumerate_params(space.dimensions, ENUMERATION_LIMIT)
        self._features_of: dict[str, dict[str, float]] = {}  # by identity of records
        self._candidate_of: dict[tuple, Candidate] = {}  # by parameters

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        rng = random.Random(seed)
        results_of = {
            record.number: results
            for record in records
            if record.status is not Status.FAILED and (results := self._results(record))
        }
        trained = [record for record in records if record.number in results_of]
        identities = {record.identity for record in records}
        parents = self._front(trained)
        front = {record.number for record in parents}
        candidates = self._candidates(identities, parents, rng)
        if not candidates:  # the gate recognises a known design
            return self._space.suggest(RandomTrial(seed))

        accuracies = at_full_budget([results_of[record.number] for record in trained])
        costs = expected_costs([c.cost for c in candidates], [r.cost for r in trained])
        speeds = np.array([r.speed_score for r in trained])
        scores = SCORE_WEIGHT * accuracies + (1 - SCORE_WEIGHT) * speeds
        modelled = representative(
            scores.tolist(),
            MAX_TRIALS,
            always=[i for i, record in enumerate(trained) if record.number in front],
        )
        trained, accuracies = [trained[index] for index in modelled], accuracies[modelled]
        inputs = matrix(
            [self._features(record) for record in trained]
            + [candidate.features for candidate in candidates]
        )
        count = len(trained)
        model = GaussianProcess(inputs[:count], accuracies, np.random.default_rng(seed))
        mean, std = model.predict(inputs)
        speed = np.array(
            [r.speed_score for r in trained]
            + [self._space.objective.speed_score(cost) for cost in costs]
        )
        weight = SCORE_WEIGHT
        if rng.random() < FRONT_SHARE:
            weight = rng.random()
        mean, std = weight * mean + (1 - weight) * speed, weight * std
        improvement = expected_improvement(mean[count:], std[count:], mean[:count].max())
        return candidates[int(np.argmax(improvement))].params

    def _results(self, record: TrialRecord) -> dict[int, float]:
        """Accuracy by epoch, at the rungs and at the last evaluation: others add little."""
        return {
            epoch.epoch: epoch.accuracy_score
            for epoch in record.epochs
            if epoch.accuracy_score is not None
            and (epoch is record.last_evaluation or epoch.epoch in self._space.rungs)
        }

    def _candidates(
        self, identities: set[str], parents: Sequence[TrialRecord], rng: random.Random
    ) -> list[Candidate]:
        """Different feasible designs whose identities are not among `identities`."""
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

    def _front(self, trained: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The sampled trials that none of at least their budget dominates in accuracy and speed."""
        sampled = [
            (r, r.last_evaluation) for r in trained if r.params and r.last_evaluation is not None
        ]
        points = [(last.accuracy_score, r.speed_score, last.epoch) for r, last in sampled]
        return [r for (r, _), lost in zip(sampled, dominated(np.array(points))) if not lost]

    def _features(self, record: TrialRecord) -> dict[str, float]:
        identity = record.identity
        if identity not in self._features_of:
            self._features_of[identity] = features(record.detector, record.recipe, record.cost)
        return self._features_of[identity]


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


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement over `best` of normal variables, float [N]."""
    z = (mean - best) / std
    return std * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
