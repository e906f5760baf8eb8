"""Optuna's samplers over stored records: TPE, NSGA-II and a Gaussian process.

Each proposal comes from a study in memory, rebuilt from the records: their storage has one writer
and one objective, while samplers write to theirs, and some have two objectives or one budget.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from analysis.statistics.pareto import dominated
from nas.samplers import optuna_adapter
from nas.samplers.base import MAX_TRIALS, informative_trials, representative
from nas.search_space.dimensions import Params, Value, grid_value
from nas.search_space.space import SearchSpace
from trials.record import Status, TrialRecord

POPULATION = 20
"""Of NSGA-II: with hundreds of trials this makes ten generations rather than two."""
GP_MIN_TRIALS = 10
"""Trials that must have reached a budget for a Gaussian process to model it."""
GP_MAX_TRIALS = 80
"""Trials that a Gaussian process is fitted to, the best and the latest ones: its time grows with
their third power."""


class Tpe:
    """Tree-structured Parzen estimator over the score, of all dimensions jointly (`group` splits
    them where they are conditional). Rung results are its intermediate values."""

    def __init__(self, space: SearchSpace):
        self._space = space
        self._cache: dict[int, tuple[TrialRecord, FrozenTrial]] = {}  # by record's number

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        with _quiet():
            sampler = optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=0,  # `Proposer` has drawn them
                multivariate=True,
                group=True,
                constant_liar=True,
            )
            trials = [self._cached_trial(record) for record in _for_tpe(records)]
            return self._space.suggest(optuna_adapter.ask(trials, sampler))

    def _cached_trial(self, record: TrialRecord) -> FrozenTrial:
        cached = self._cache.get(record.number)
        if cached is None or (cached[0] is not record and cached[0] != record):
            cached = self._cache[record.number] = (record, self._frozen(record))
        return cached[1]

    def _frozen(self, record: TrialRecord) -> FrozenTrial:
        """Completed: its score. At a rung, whether waiting or promoted: its scores so far.
        Otherwise running: TPE keeps its distance from those (constant liar)."""
        scores = record.scores()
        state, values = TrialState.PRUNED if scores else TrialState.RUNNING, None
        if record.status is Status.COMPLETED and record.score is not None:
            state, values = TrialState.COMPLETE, [record.score]
        return optuna_adapter.frozen_trial(
            record.number + 1,
            state,
            self._space.to_internal(record.params),
            self._space.distributions(record.params, internal=True),
            intermediate_values=scores,
            values=values,
        )


class Nsga2:
    """NSGA-II (Deb et al. 2002) over accuracy and speed, `results_at_common_budget`.

    Generations are the results in the order of their numbers, POPULATION at a time; of a long study
    the last ones (`_generations`). Inactive
    dimensions are filled in (`fill_inactive`), as Optuna crosses only what all parents have.
    """

    def __init__(self, space: SearchSpace):
        self._space = space

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        with _quiet():
            sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
            key = optuna_adapter.generation_key(sampler)
            results = _generations(
                results_at_common_budget(informative_trials(records), POPULATION)
            )
            trials = [
                optuna_adapter.frozen_trial(
                    index + 1,
                    TrialState.COMPLETE,
                    *fill_inactive(self._space, record.params),
                    values=[accuracy_score, record.speed_score],
                    system_attrs={key: index // POPULATION},
                )
                for index, (record, accuracy_score) in enumerate(results)
            ]
            return self._space.suggest(optuna_adapter.ask(trials, sampler, objectives=2))


class GaussianProcess:
    """Optuna's GPSampler over the score, `results_at_common_budget`; expected improvement.

    It draws conditional dimensions at random; with inactive ones filled in (`fill_inactive`) there
    are none. It gets one torch thread, which is faster than several.
    """

    def __init__(self, space: SearchSpace):
        self._space = space

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        results = results_at_common_budget(informative_trials(records), GP_MIN_TRIALS)
        scored = [(record, record.score_at(accuracy_score)) for record, accuracy_score in results]
        if len(scored) > GP_MAX_TRIALS:
            best = sorted(scored, key=lambda pair: -pair[1])[: GP_MAX_TRIALS // 2]
            numbers = {record.number for record, _ in best}
            others = [pair for pair in scored if pair[0].number not in numbers]
            scored = best + others[-(GP_MAX_TRIALS // 2) :]
        trials = [
            optuna_adapter.frozen_trial(
                index + 1,
                TrialState.COMPLETE,
                *fill_inactive(self._space, record.params),
                values=[score],
            )
            for index, (record, score) in enumerate(scored)
        ]
        with _quiet(), _one_thread():
            sampler = optuna_adapter.gp_sampler(seed)
            return self._space.suggest(optuna_adapter.ask(trials, sampler))


def results_at_common_budget(
    records: Sequence[TrialRecord], min_trials: int
) -> list[tuple[TrialRecord, float]]:
    """Trials with their accuracy score at one number of epochs, by trial number: at the highest
    that `min_trials` have reached (as BOHB chooses, Falkner et al. 2018), else at the one that most
    have."""
    counts = Counter(e.epoch for record in records for e in record.epochs if e.ap is not None)
    if not counts:
        return []
    reached = [epoch for epoch, count in counts.items() if count >= min_trials]
    most_common = max(counts, key=lambda epoch: (counts[epoch], epoch))
    budget = max(reached) if reached else most_common
    return [
        (record, result.accuracy_score)
        for record in records
        for result in record.epochs
        if result.epoch == budget and result.accuracy_score is not None
    ]


def _for_tpe(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that TPE learns from: those without a result, which it keeps its distance from,
    and of the others those that are `representative`. The best are those that it takes for the
    best: those trained longest, by score."""
    trials = informative_trials(records)
    if len(trials) <= MAX_TRIALS:
        return trials
    keys = [
        (0, -math.inf) if (last := record.last_evaluation) is None else (last.epoch, record.score)
        for record in trials
    ]
    waiting = [index for index, record in enumerate(trials) if record.last_evaluation is None]
    return [trials[index] for index in representative(keys, MAX_TRIALS, reversed(waiting))]


def _generations(results: list[tuple[TrialRecord, float]]) -> list[tuple[TrialRecord, float]]:
    """At most MAX_TRIALS results, in generations of POPULATION: the last ones, after one of the
    best of all earlier ones. NSGA-II would have selected these as parents by then: it keeps the
    best of parents and children."""
    if len(results) <= MAX_TRIALS:
        return results
    generations = math.ceil((len(results) - MAX_TRIALS) / POPULATION) + 1
    earlier, later = results[: generations * POPULATION], results[generations * POPULATION :]
    points = np.array([(accuracy, record.speed_score) for record, accuracy in earlier])
    remaining, elite = np.arange(len(points)), list[int]()
    while len(elite) < POPULATION:  # one front after the other
        worse = dominated(points[remaining])
        front, remaining = remaining[~worse], remaining[worse]
        room = POPULATION - len(elite)
        if len(front) > room:  # as many of it, at equal distances along it
            order = np.argsort(points[front, 0], kind="stable")
            front = front[order[np.linspace(0, len(front) - 1, room).round().astype(int)]]
        elite += front.tolist()
    return [earlier[index] for index in sorted(elite)] + later


def fill_inactive(space: SearchSpace, params: Params) -> tuple[Params, dict[str, BaseDistribution]]:
    """Internal parameters (`SearchSpace.to_internal`) with a middle value for each inactive
    dimension, and the distributions of all."""
    filled, distributions = space.to_internal(params), {}
    for dimension in space.dimensions:
        distribution = distributions[dimension.name] = dimension.distribution(internal=True)
        if dimension.name not in filled:
            filled[dimension.name] = _middle(distribution)
    return filled, distributions


def _middle(distribution: BaseDistribution) -> Value:
    if isinstance(distribution, CategoricalDistribution):
        first = distribution.choices[0]
        assert first is not None  # no value of a space
        return first
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None and not distribution.log:
        return grid_value(low, high, step, int((high - low) / step / 2))
    middle = math.sqrt(low * high) if distribution.log else (low + high) / 2
    return middle if isinstance(distribution, FloatDistribution) else round(middle)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Optuna's log and its warnings of experimental features."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
