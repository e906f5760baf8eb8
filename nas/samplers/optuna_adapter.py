"""All uses of Optuna beyond its documented interface, checked with Optuna 5.0.

Samplers and the storage of studies call these functions. tests/nas/samplers/test_optuna_adapter.py
fails if a newer Optuna lacks one of the names. Imports Optuna only when one is called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy.engine import Engine


class TrialStorage:
    """The storage of one Optuna study, written without its ask and tell: trials are created in any
    state and with any values."""

    def __init__(self, study: optuna.Study):
        self._study_id, self._storage = study._study_id, study._storage

    @property
    def _engine(self) -> Engine:
        """SQLAlchemy's, of the storage that Optuna has wrapped in a cache."""
        return self._storage._backend.engine  # type: ignore[attr-defined]

    def create_new_trial(self, trial: FrozenTrial) -> int:
        """Store a copy of `trial`; returns its id. A finished trial cannot change any more."""
        return self._storage.create_new_trial(self._study_id, template_trial=trial)

    def create_failed_trials(self, trials: Sequence[FrozenTrial]) -> list[int]:
        """Store copies of trials that failed without any result, all or none; returns their ids.

        In one transaction, past Optuna's own call, which looks up each parameter and takes a
        hundred times as long: 30 ms for a design of 16 parameters.
        """
        from optuna.distributions import distribution_to_json
        from optuna.storages._rdb import models
        from sqlalchemy import Table, func, insert, select

        def table(model: type) -> Table:
            return model.__table__  # type: ignore[attr-defined]

        params, user_attrs, system_attrs = list[dict](), list[dict](), list[dict]()
        ids = []
        with self._engine.begin() as connection:
            known = table(models.TrialModel)
            first = connection.execute(
                select(func.count()).where(known.c.study_id == self._study_id)
            ).scalar_one()
            for number, trial in enumerate(trials, start=first):
                row = insert(known).values(
                    number=number,
                    study_id=self._study_id,
                    state=trial.state,
                    datetime_start=_stored_time(trial.datetime_start),
                    datetime_complete=_stored_time(trial.datetime_complete),
                )
                trial_id = connection.execute(row.returning(known.c.trial_id)).scalar_one()
                ids.append(trial_id)
                params += [
                    {
                        "trial_id": trial_id,
                        "param_name": name,
                        "param_value": distribution.to_internal_repr(trial.params[name]),
                        "distribution_json": distribution_to_json(distribution),
                    }
                    for name, distribution in trial.distributions.items()
                ]
                user_attrs += _attribute_rows(trial_id, trial.user_attrs)
                system_attrs += _attribute_rows(trial_id, trial.system_attrs)
            for model, rows in (
                (models.TrialParamModel, params),
                (models.TrialUserAttributeModel, user_attrs),
                (models.TrialSystemAttributeModel, system_attrs),
            ):
                if rows:
                    connection.execute(insert(table(model)), rows)
        return ids

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._storage.get_trial(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._storage.set_trial_system_attr(trial_id, key, value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(trial_id, key, value)

    def set_trial_intermediate_value(self, trial_id: int, step: int, value: float) -> None:
        self._storage.set_trial_intermediate_value(trial_id, step, value)

    def set_trial_state_values(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float] | None,
        ended: datetime | None = None,
    ) -> None:
        """End a trial.

        Args:
            ended: when it did, in local time; None means now, as for Optuna's own call.
        """
        self._storage.set_trial_state_values(trial_id, state, values)
        if ended is None:
            return
        from optuna.storages._rdb import models
        from sqlalchemy import update

        with self._engine.begin() as connection:
            connection.execute(
                update(models.TrialModel)
                .where(models.TrialModel.trial_id == trial_id)
                .values(_datetime_complete_utc=_stored_time(ended))
            )


def _stored_time(moment: datetime | None) -> datetime | None:
    """Local time as the storage has it: in UTC."""
    return moment and moment.astimezone(UTC).replace(tzinfo=None)


def _attribute_rows(trial_id: int, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]


def set_metric_names(study: optuna.Study, names: list[str]) -> None:
    """Name the values of a study for Optuna's own tools; experimental there, as a warning says."""
    import warnings

    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(names)


def trial_id_of(trial: FrozenTrial) -> int:
    """The storage's id of a trial; `number` counts within its study."""
    return trial._trial_id


def gp_sampler(seed: int) -> GPSampler:
    """Optuna's GPSampler in 0.6 of its time, with the same proposals.

    Its `with torch.device("cpu")` guards against another default device, which this project never
    sets, and makes every operation of torch pass through Python.
    """
    import optuna
    import torch

    class FastGPSampler(optuna.samplers.GPSampler):
        def _sample_relative_impl(self, *args, **kwargs):
            with torch._C.DisableTorchFunction():
                return super()._sample_relative_impl(*args, **kwargs)

    return FastGPSampler(seed=seed, n_startup_trials=0)


def generation_key(sampler: NSGAIISampler) -> str:
    """The system attribute in which a trial has the number of its generation."""
    return sampler._get_generation_key()


def frozen_trial(
    number: int,
    state: TrialState,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    *,
    values: Sequence[float] | None = None,
    intermediate_values: Mapping[int, float] | None = None,
    system_attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """A trial for `ask`.

    Args:
        number: from 1, as 0 is the trial that is asked for.
    """
    from optuna.trial import FrozenTrial

    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        params=dict(params),
        distributions=dict(distributions),
        value=None,
        values=values,
        datetime_start=None,
        datetime_complete=None,
        user_attrs={},
        system_attrs=dict(system_attrs or {}),
        intermediate_values=dict(intermediate_values or {}),
    )


def ask(trials: Sequence[FrozenTrial], sampler: BaseSampler, objectives: int = 1) -> optuna.Trial:
    """A new trial of a study in memory that consists of `trials`.

    Args:
        objectives: how many values a trial has, all to be maximized.
    """
    import optuna

    class Snapshot(optuna.storages.InMemoryStorage):
        """Returns `trials` as they are; adding them one by one takes three times as long."""

        def get_all_trials(self, study_id, deepcopy=True, states=None):
            return [trial for trial in trials if states is None or trial.state in states]

    directions = [optuna.study.StudyDirection.MAXIMIZE] * objectives
    return optuna.create_study(directions=directions, storage=Snapshot(), sampler=sampler).ask()
