"""Optuna's samplers over stored records: TPE, NSGA-II and a Gaussian process.

Each proposal comes from a study in memory, rebuilt from the records: their storage has one writer
and one direction, and Optuna's samplers shall neither write to it nor mix budgets up.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.base import STARTUP, teaching
from nas.search_space.dimensions import Params
from nas.search_space.space import SearchSpace
from trials.record import EpochResult, Status, TrialRecord

POPULATION = 20
"""Of NSGA-II: a search has hundreds of trials, so ten generations rather than two."""
GP_AT_MOST = 120
"""Results a Gaussian process is fitted to, the best ones and the latest: its time grows with their
third power."""


class Tpe:
    """Tree-structured Parzen estimator over the score, all dimensions at once (`group` splits
    them where they are conditional). Sees rung results as intermediate values."""

    def __init__(self, space: SearchSpace):
        self._space = space
        self._views: dict[int, tuple[TrialRecord, FrozenTrial]] = {}

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        with _quiet():
            sampler = optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=STARTUP["tpe"],
                multivariate=True,
                group=True,
                constant_liar=True,
            )
            known = [self._view(record) for record in teaching(records)]
            return self._space.suggest(_open_trial(known, sampler, ["maximize"]))

    def _view(self, record: TrialRecord) -> FrozenTrial:
        kept = self._views.get(record.number)
        if kept is None or (kept[0] is not record and kept[0] != record):
            kept = self._views[record.number] = (record, self._frozen(record))
        return kept[1]

    def _frozen(self, record: TrialRecord) -> FrozenTrial:
        """Completed: its score. At a rung, whether waiting or promoted: its scores so far.
        Otherwise running: TPE keeps its distance from those (constant liar)."""
        scores = record.scores()
        state = TrialState.PRUNED if scores else TrialState.RUNNING
        if record.status is Status.COMPLETED:
            state = TrialState.COMPLETE
        return _trial(
            record.number + 1,
            state,
            self._space.coded(record.params),
            self._space.distributions(record.params, coded=True),
            scores=scores,
            values=[record.score] if state is TrialState.COMPLETE else None,
        )


class Nsga2:
    """NSGA-II (Deb et al. 2002) over accuracy and speed, at one budget (`comparable`).

    Generations are the results in the order of their numbers, POPULATION at a time. Inactive
    dimensions are filled in (`whole`): Optuna crosses only what all parents have.
    """

    def __init__(self, space: SearchSpace):
        self._space = space

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        with _quiet():
            sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
            key, known = sampler._get_generation_key(), []
            for record, result in comparable(teaching(records), POPULATION):
                params, distributions = whole(self._space, record.params)
                known.append(
                    _trial(
                        len(known) + 1,
                        TrialState.COMPLETE,
                        params,
                        distributions,
                        values=[result.accuracy_score, record.speed_score],
                        attributes={key: len(known) // POPULATION},
                    )
                )
            return self._space.suggest(_open_trial(known, sampler, ["maximize", "maximize"]))


class GaussianProcess:
    """Optuna's GPSampler over the score at one budget (`comparable`), expected improvement.

    It proposes by chance what is conditional; with inactive dimensions filled in (`whole`)
    nothing is. It gets one torch thread, which is faster than several.
    """

    def __init__(self, space: SearchSpace):
        self._space = space

    def ask(self, records: Sequence[TrialRecord], seed: int) -> Params:
        pairs = comparable(teaching(records), STARTUP["gp"])
        scored = [
            (record, record.speed_score + 2 * result.accuracy_score) for record, result in pairs
        ]
        if len(scored) > GP_AT_MOST:
            best = sorted(scored, key=lambda pair: -pair[1])[: GP_AT_MOST // 2]
            numbers = {record.number for record, _ in best}
            latest = [pair for pair in scored if pair[0].number not in numbers]
            scored = best + latest[-(GP_AT_MOST // 2) :]
        known = [
            _trial(
                place + 1, TrialState.COMPLETE, *whole(self._space, record.params), values=[score]
            )
            for place, (record, score) in enumerate(scored)
        ]
        with _quiet(), _one_thread():
            sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=0)
            return self._space.suggest(_open_trial(known, sampler, ["maximize"]))


def comparable(records: Sequence[TrialRecord], least: int) -> list[tuple[TrialRecord, EpochResult]]:
    """Results at one number of epochs, by trial number: the highest that at least `least` trials
    have reached (as BOHB chooses, Falkner et al. 2018), else the one that most have."""
    at: dict[int, list[tuple[TrialRecord, EpochResult]]] = {}
    for record in records:
        for result in record.epochs:
            if result.ap is not None:
                at.setdefault(result.epoch, []).append((record, result))
    if not at:
        return []
    enough = [epoch for epoch in at if len(at[epoch]) >= least]
    return at[max(enough) if enough else max(at, key=lambda epoch: (len(at[epoch]), epoch))]


def whole(space: SearchSpace, params: Params) -> tuple[Params, dict[str, BaseDistribution]]:
    """Answers to all questions of a space and their distributions: the coded parameters, and a
    middle value wherever a dimension is inactive."""
    coded, distributions = space.coded(params), {}
    for dimension in space.dimensions:
        distribution = distributions[dimension.name] = dimension.distribution(coded=True)
        if dimension.name not in coded:
            coded[dimension.name] = _middle(distribution)
    return coded, distributions


def _middle(distribution: BaseDistribution):
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None and not distribution.log:
        return low + step * int((high - low) / step / 2)
    middle = math.sqrt(low * high) if distribution.log else (low + high) / 2
    return middle if isinstance(distribution, FloatDistribution) else round(middle)


def _trial(
    number: int,
    state: TrialState,
    params: Params,
    distributions: dict[str, BaseDistribution],
    *,
    values: list[float] | None = None,
    scores: dict[int, float] | None = None,
    attributes: dict | None = None,
) -> FrozenTrial:
    """`number` from 1: 0 is the trial that is asked for."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        params=params,
        distributions=distributions,
        value=None,
        values=values,
        datetime_start=None,
        datetime_complete=None,
        user_attrs={},
        system_attrs=attributes or {},
        intermediate_values=scores or {},
    )


def _open_trial(known: list[FrozenTrial], sampler, directions: list[str]) -> optuna.Trial:
    """An open trial of a study in memory that consists of the known ones."""

    class Snapshot(optuna.storages.InMemoryStorage):
        """Reads the known trials as they are: adding them one by one takes three times longer."""

        def get_all_trials(self, study_id, deepcopy=True, states=None):
            return [t for t in known if states is None or t.state in states]

    return optuna.create_study(directions=directions, storage=Snapshot(), sampler=sampler).ask()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells what it makes, and that some of it is experimental."""
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
