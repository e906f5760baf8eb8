"""Who proposes parameters: by chance, or from what the stored records tell.

A proposal is a function of the seed, the records and the attempt, so that a search that was
killed goes on with the same proposals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from detector.base.errors import UserError
from nas.samplers.base import STARTUP, Sampler, teaching
from nas.search_space.dimensions import Params
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.record import TrialRecord

SAMPLERS = ("tpe", "random", "nsga2", "gp", "frugal")
DEFAULT = "frugal"
"""Finds most for the fewest epochs on the recorded table (docs/replay.md)."""
STUBBORN = {"tpe": 4, "nsga2": 4, "gp": 1, "frugal": 1}
"""Attempts after which a sampler that repeats itself is replaced by chance: soon where all attempts
have the same model and seek its best."""


class Proposer:
    """Proposes parameters; keeps what it knows of the records between calls.

    Args:
        sampler: one of SAMPLERS.
    Raises:
        UserError: an unknown sampler.
    """

    def __init__(self, space: SearchSpace, sampler: str = DEFAULT, *, seed: int = 0):
        self.space, self.sampler, self.seed = space, sampler, seed
        self._sampler = _make(sampler, space)
        self._records: Sequence[TrialRecord] = ()
        self._results = 0

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Take note of all records of the study, in their present state."""
        self._records = list(records)
        self._results = sum(record.evaluated is not None for record in teaching(records))

    def ask(self, attempt: int = 0) -> Params:
        """Parameters for the next trial; another `attempt` gives others."""
        key = f"{self.seed}/{len(self._records)}/{attempt}"
        if (
            self._sampler is None
            or attempt >= STUBBORN[self.sampler]
            or self._results < STARTUP[self.sampler]
        ):
            return self.space.suggest(RandomTrial(key))
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
        return self._sampler.ask(self._records, seed)


def propose(space: SearchSpace, sampler: str, records: Sequence[TrialRecord], seed: int) -> Params:
    """One proposal, from nothing but what is stored."""
    proposer = Proposer(space, sampler, seed=seed)
    proposer.update(records)
    return proposer.ask()


def _make(sampler: str, space: SearchSpace) -> Sampler | None:
    """None: chance. What a sampler needs is imported only where it is chosen."""
    if sampler not in SAMPLERS:
        raise UserError(f"--sampler {sampler!r}: is not one of {', '.join(SAMPLERS)}")
    if sampler == "random":
        return None
    if sampler == "frugal":
        from nas.samplers.frugal import Frugal

        return Frugal(space)
    from nas.samplers import optuna_samplers

    return {
        "tpe": optuna_samplers.Tpe,
        "nsga2": optuna_samplers.Nsga2,
        "gp": optuna_samplers.GaussianProcess,
    }[sampler](space)
