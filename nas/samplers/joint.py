"""`joint`: one model of all learning curves decides what is trained next, a new design or a paused
trial.

The next step is the one with the highest probability, per epoch that the design still needs, of
being among the best designs by score in the end; for a share of the steps, of being on the front of
accuracy and speed. Costs are exact, so accuracy alone is modelled (`learning_curves`); running
trials are imagined to their end in every sample.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from analysis.statistics.fidelities import shares_of_best
from nas.samplers.base import Step, representative
from nas.samplers.candidates import Candidate, Candidates, front
from nas.samplers.expected_latency import expected_costs
from nas.samplers.features import matrix
from nas.samplers.learning_curves import LearningCurves, Observations
from nas.samplers.prior import Prior
from nas.search_space.dimensions import Params
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.record import Status, TrialRecord

SAMPLES = 288
BEST = 3
"""Designs that count as the best."""
FRONT_SHARE = {"score": 0.2, "front": 0.5}
"""By the space's `promote`: the share of the steps that serve the front, once BEST designs are
trained in full: early on they cost more than they find."""
MAX_TRIALS = 200
"""Trials that the model sees, so that a step takes less than a second in a long study."""


class Joint:
    """A `nas.samplers.base.Decider`.

    Args:
        prior: what earlier studies say; None means that there are none.
        candidates: of `space`, if they are not detectors.
    """

    def __init__(
        self, space: SearchSpace, prior: Prior | None = None, candidates: Candidates | None = None
    ):
        self._space, self._prior = space, prior
        self._candidates = candidates or Candidates(space)

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        return self.next_step(records, seed, epochs=0).params or self._space.suggest(
            RandomTrial(seed)
        )

    def next_step(
        self, records: Sequence[TrialRecord], seed: int, *, epochs: float, new: bool = True
    ) -> Step:
        rng, normal = random.Random(seed), np.random.default_rng(seed)
        trials = self._modelled(records)
        candidates: list[Candidate] = []
        if new:
            parents = front([r for r in trials if r.last_evaluation is not None])
            candidates = self._candidates.unknown({r.identity for r in records}, parents, rng)
        allowed = np.array(
            [self._may_continue(r, epochs) for r in trials] + [True] * len(candidates)
        )
        if not allowed.any():
            return Step()
        objective = self._space.objective
        accuracy = self._sample_accuracy(trials, candidates, normal)
        costs = [r.cost for r in trials]
        costs += expected_costs([c.cost for c in candidates], costs)
        completed = sum(r.status is Status.COMPLETED and r.number != 0 for r in trials)
        if completed >= BEST and rng.random() < FRONT_SHARE[self._space.promote]:
            speed = np.array([objective.speed_score(cost) for cost in costs])
            chance = chance_on_front(accuracy, speed)
        else:
            chance = chance_among_best(objective.scores(accuracy, costs))
        # The mean score decides where no sample has any of them among the best.
        mean_score = objective.scores(accuracy.mean(axis=0), costs)
        chance = chance + 1e-6 * rankdata(mean_score) / len(mean_score)
        last = self._space.rungs[-1]
        needed = [last - len(r.epochs) for r in trials] + [last] * len(candidates)
        value = np.where(allowed, chance / np.maximum(needed, 1), -np.inf)
        index = int(value.argmax())
        if index < len(trials):
            return Step(trial=trials[index])
        return Step(params=candidates[index - len(trials)].params)

    def _modelled(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The trials that have a result or will have one; in a long study those that stand for
        all."""
        trials = [
            r
            for r in records
            if r.status not in (Status.FAILED, Status.INFEASIBLE)
            and (r.last_evaluation is not None or r.status is Status.RUNNING)
        ]
        scores = [next(reversed(r.scores().values()), 0.0) for r in trials]
        on_front = {r.number for r in front([r for r in trials if r.last_evaluation])}
        always = [i for i, r in enumerate(trials) if r.number in on_front]
        return [trials[index] for index in representative(scores, MAX_TRIALS, always)]

    def _may_continue(self, record: TrialRecord, epochs: float) -> bool:
        """Whether a trial is paused, has learned something, and `epochs` suffice for its next."""
        rungs = self._space.rungs
        target = next((rung for rung in rungs if rung > len(record.epochs)), rungs[-1])
        return (
            record.status is Status.PAUSED
            and target - len(record.epochs) <= epochs
            and record.why_nothing_learned() is None
        )

    def _sample_accuracy(
        self,
        trials: Sequence[TrialRecord],
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Accuracy after the last epoch, float [samples, P]; that of trials trained in full is as
        measured, that of the baseline, which none competes with, 0."""
        last = self._space.rungs[-1]
        rows = [self._candidates.features(r) for r in trials] + [c.features for c in candidates]
        prior = None if self._prior is None else self._prior.predict(rows)
        model = LearningCurves(matrix(rows), self._observations(trials), last, rng, prior)
        accuracy = model.sample(SAMPLES, rng)
        for index, record in enumerate(trials):
            if record.number == 0:
                accuracy[:, index] = 0.0
            elif record.last_evaluation is not None and record.last_evaluation.epoch >= last:
                accuracy[:, index] = record.last_evaluation.accuracy_score
        return accuracy

    def _observations(self, trials: Sequence[TrialRecord]) -> Observations:
        """Results at the rungs and at the last evaluation: others add little."""
        looks = [
            (index, epoch.epoch, epoch.accuracy_score)
            for index, record in enumerate(trials)
            for epoch in record.epochs
            if epoch.accuracy_score is not None
            and (epoch is record.last_evaluation or epoch.epoch in self._space.rungs)
        ]
        design, epoch, accuracy = np.array(looks, float).reshape(-1, 3).T
        return Observations(design.astype(int), epoch, accuracy)


def chance_among_best(score: np.ndarray) -> np.ndarray:
    """Probability that each design is among the BEST, float [P].

    Args:
        score: float [samples, P].
    """
    return shares_of_best(score, BEST)


def chance_on_front(accuracy: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Probability that no other design is at least as fast and more accurate, float [P].

    Args:
        accuracy: float [samples, P].
        speed: float [P].
    """
    order = np.argsort(-speed, kind="stable")
    best = np.maximum.accumulate(accuracy[:, order], axis=1)
    as_fast = np.searchsorted(-speed[order], -speed[order], side="right") - 1  # the last of them
    chance = np.empty(len(speed))
    chance[order] = (accuracy[:, order] >= best[:, as_fast]).mean(axis=0)
    return chance
