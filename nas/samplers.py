"""Who proposes parameters: by chance, or from what the stored records tell (Optuna's TPE).

A proposal is a function of the seed, the records and the attempt, so that a search that was
killed goes on with the same proposals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from detector.errors import UserError
from nas.dimensions import Params
from nas.space import RandomTrial, SearchSpace
from trials.record import Status, TrialRecord

SAMPLERS = ("tpe", "random")
STARTUP = 20
"""Trials with a result before TPE models them; random until then."""
STUBBORN = 10
"""Attempts after which a sampler that repeats itself is replaced by chance."""


class Proposer:
    """Proposes parameters; keeps what it knows of the records between calls.

    Args:
        sampler: one of SAMPLERS.
        startup: results (completed or at a rung) before TPE takes over from chance.

    Raises:
        UserError: an unknown sampler.
    """

    def __init__(self, space: SearchSpace, sampler: str = "tpe", *, seed: int = 0,
                 startup: int = STARTUP):
        if sampler not in SAMPLERS:
            raise UserError(f"--sampler {sampler!r}: is not one of {', '.join(SAMPLERS)}")
        self.space, self.sampler, self.seed, self.startup = space, sampler, seed, startup
        self._records: Sequence[TrialRecord] = ()
        self._frozen: dict[int, tuple[TrialRecord, object]] = {}  # number → record, Optuna's view

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Take note of all records of the study, in their present state."""
        self._records = list(records)

    def ask(self, attempt: int = 0) -> Params:
        """Parameters for the next trial; another `attempt` gives others."""
        key = f"{self.seed}/{len(self._records)}/{attempt}"
        if self.sampler == "random" or attempt >= STUBBORN:
            return self.space.suggest(RandomTrial(key))
        known = [trial for record in self._records if (trial := self._view(record)) is not None]
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
        return self.space.suggest(_tpe_trial(known, seed, self.startup))

    def _view(self, record: TrialRecord):
        """A record as Optuna's FrozenTrial; none where it teaches nothing about accuracy."""
        if not record.params or record.status in (Status.INFEASIBLE, Status.FAILED):
            return None
        kept = self._frozen.get(record.number)
        if kept is None or (kept[0] is not record and kept[0] != record):
            kept = self._frozen[record.number] = (record, _frozen(self.space, record))
        return kept[1]


def propose(space: SearchSpace, sampler: str, records: Sequence[TrialRecord], seed: int) -> Params:
    """One proposal, from nothing but what is stored."""
    proposer = Proposer(space, sampler, seed=seed)
    proposer.update(records)
    return proposer.ask()


def _frozen(space: SearchSpace, record: TrialRecord):
    """Completed: its score. At a rung, whether waiting or promoted: its scores so far. Otherwise
    running: TPE keeps its distance from those (constant liar)."""
    from optuna.trial import FrozenTrial, TrialState

    scores = record.scores()
    state = TrialState.PRUNED if scores else TrialState.RUNNING
    if record.status is Status.COMPLETED:
        state = TrialState.COMPLETE
    number = record.number + 1  # 0 is the trial that is asked for
    return FrozenTrial(
        number=number, trial_id=number, state=state, params=space.coded(record.params),
        value=record.score if state is TrialState.COMPLETE else None, datetime_start=None,
        datetime_complete=None, distributions=space.distributions(record.params, coded=True),
        user_attrs={}, system_attrs={}, intermediate_values=scores)


def _tpe_trial(known: list, seed: int, startup: int):
    """An open trial of a study in memory that consists of the known ones."""
    import warnings

    import optuna

    class Snapshot(optuna.storages.InMemoryStorage):
        """Reads the known trials as they are: adding them one by one takes three times longer."""

        def get_all_trials(self, study_id, deepcopy=True, states=None):
            return [t for t in known if states is None or t.state in states]

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, group=True,
                constant_liar=True)
            study = optuna.create_study(direction="maximize", storage=Snapshot(), sampler=sampler)
        return study.ask()
    finally:
        optuna.logging.set_verbosity(verbosity)
