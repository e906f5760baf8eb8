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
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from nas.samplers.base import MAX_TRIALS, representative
from nas.samplers.candidates import Candidates, front
from nas.samplers.expected_latency import expected_costs
from nas.samplers.features import matrix
from nas.samplers.gaussian_process import GaussianProcess, at_full_budget
from nas.search_space.dimensions import Params
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.record import Status, TrialRecord

FRONT_SHARE = 0.3
"""Share of proposals under a random weighting."""


class Frugal:
    """A `nas.samplers.base.Sampler`.

    Args:
        candidates: of `space`, if they are not detectors.
    """

    def __init__(self, space: SearchSpace, candidates: Candidates | None = None):
        self._space = space
        self._candidates = candidates or Candidates(space)

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        rng = random.Random(seed)
        results_of = {
            record.number: results
            for record in records
            if record.status is not Status.FAILED and (results := self._results(record))
        }
        trained = [record for record in records if record.number in results_of]
        identities = {record.identity for record in records}
        parents = front(trained)
        on_front = {record.number for record in parents}
        candidates = self._candidates.unknown(identities, parents, rng)
        if not candidates:  # the gate recognises a known design
            return self._space.suggest(RandomTrial(seed))

        accuracies = at_full_budget([results_of[record.number] for record in trained])
        costs = expected_costs([c.cost for c in candidates], [r.cost for r in trained])
        modelled = representative(
            [record.score_at(a) for record, a in zip(trained, accuracies.tolist())],
            MAX_TRIALS,
            always=[i for i, record in enumerate(trained) if record.number in on_front],
        )
        trained, accuracies = [trained[index] for index in modelled], accuracies[modelled]
        inputs = matrix(
            [self._candidates.features(record) for record in trained]
            + [candidate.features for candidate in candidates]
        )
        count = len(trained)
        model = GaussianProcess(inputs[:count], accuracies, np.random.default_rng(seed))
        mean, std = model.predict(inputs)
        speed = np.array(
            [r.speed_score for r in trained]
            + [self._space.objective.speed_score(cost) for cost in costs]
        )
        if rng.random() < FRONT_SHARE:
            weight = rng.random()
            mean, std = weight * mean + (1 - weight) * speed, weight * std
        else:
            everyone = [record.cost for record in trained] + costs
            mean, std = self._space.objective.normal_scores(mean, std, everyone)
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


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement over `best` of normal variables, float [N]."""
    z = (mean - best) / std
    return std * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
