"""The gate before training: proposal → design → hash → cost → caps. Duplicates are drawn again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from detector.base.errors import UserError
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from nas.samplers.proposer import Proposer
from nas.search_space.dimensions import Params
from nas.search_space.space import SearchSpace
from nas.terminal.format import count
from trials.names import describe
from trials.objective import Objective
from trials.record import Cost, Status, TrialRecord, identity_of

TRIES = 1000
"""Draws without a new legal design after which a search gives up."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A design that may become a trial, and its exact cost."""

    params: Params
    detector: Detector
    recipe: Recipe
    design: str
    """`arch_hash` of the detector."""
    cost: Cost
    violation: str | None = None
    """Which cap it breaks, with its numbers; None where it may be trained."""

    @property
    def identity(self) -> str:
        """As `TrialRecord.identity`."""
        return identity_of(self.design, self.recipe)

    def line(self, number: int, note: str = "") -> str:
        """The design with its cost, as one line of a numbered list."""
        note = note or (f"infeasible: {self.violation}" if self.violation else "")
        return (
            f"{number:4d}  {describe(self.detector)}: {count(self.cost.params)} params, "
            f"{count(self.cost.macs)} MACs" + (f" ({note})" if note else "")
        )

    def record(self, number: int, objective: Objective, source: str = "sampled") -> TrialRecord:
        """The record of this design as trial `number`: running, or ended as infeasible."""
        now, legal = time.time(), self.violation is None
        return TrialRecord(
            number=number,
            status=Status.RUNNING if legal else Status.INFEASIBLE,
            design=self.design,
            detector=self.detector,
            recipe=self.recipe,
            params=self.params,
            cost=self.cost,
            speed_score=objective.speed_score(self.cost) if objective.measured(self.cost) else 0.0,
            source=source,
            reason=self.violation,
            started=now,
            ended=None if legal else now,
        )


def evaluate_cost(space: SearchSpace, params: Params) -> Proposal:
    """The design of some parameters, what it costs, and whether it may be trained."""
    return _proposal(space, params, *space.resolve(params))


def baseline(space: SearchSpace) -> Proposal:
    """The space's own design, which is trained whatever it costs."""
    return replace(_proposal(space, {}, *space.baseline), violation=None)


def _proposal(space: SearchSpace, params: Params, detector: Detector, recipe: Recipe) -> Proposal:
    cost = Cost.of(detector)
    return Proposal(
        params=params,
        detector=detector,
        recipe=recipe,
        design=arch_hash(detector),
        cost=cost,
        violation=space.constraints.violation(cost),
    )


def next_proposal(
    space: SearchSpace, proposer: Proposer, records: Sequence[TrialRecord], tries: int = TRIES
) -> Proposal:
    """The next design that no record has; legal, or infeasible (to be recorded, then draw again).

    A function of the records and the proposer's seed.

    Raises:
        UserError: no new design in `tries` draws, or no legal one among the last `tries` new ones.
    """
    over = list(takewhile(lambda r: r.status is Status.INFEASIBLE, reversed(records)))
    if len(over) >= tries:
        raise _all_infeasible(space, [r.cost for r in over])
    known = {record.identity for record in records}
    proposer.update(records)
    for attempt in range(tries):
        proposal = evaluate_cost(space, proposer.ask(attempt))
        if proposal.identity not in known:
            return proposal
    size = space.size()
    bound = f"; it has at most {size:,} designs" if size is not None else ""
    legal = sum(r.status is not Status.INFEASIBLE for r in records)
    raise UserError(
        f"{space.path}: the space is exhausted: {tries:,} draws brought nothing new after {legal} "
        f"legal and {len(records) - legal} infeasible designs{bound}; ask for fewer --trials or "
        "add choices"
    )


def check_feasible(space: SearchSpace, tries: int = TRIES) -> None:
    """That random draws bring a legal design; asked before a study is made.

    Raises:
        UserError: all of them break a cap; says which, and by how much at least.
    """
    proposer, costs = Proposer(space, "random"), []
    for attempt in range(tries):
        proposal = evaluate_cost(space, proposer.ask(attempt))
        if proposal.violation is None:
            return
        costs.append(proposal.cost)
    raise _all_infeasible(space, costs)


def _all_infeasible(space: SearchSpace, costs: Iterable[Cost]) -> UserError:
    by_cap: dict[str, list[Cost]] = {}
    for cost in costs:
        by_cap.setdefault(space.constraints.broken(cost) or "a cap", []).append(cost)
    shares = []
    for cap, costd in sorted(by_cap.items()):
        side, _, quantity = cap.partition("_")
        numbers = [getattr(cost, quantity) for cost in costd]
        nearest = min(numbers) if side == "max" else max(numbers)
        shares.append(
            f"{len(numbers)} {'over' if side == 'max' else 'under'} {cap} "
            f"{getattr(space.constraints, cap):,}, the "
            f"{'smallest' if side == 'max' else 'largest'} with {nearest:,}"
        )
    total = sum(map(len, by_cap.values()))
    return UserError(
        f"{space.path}: every one of {total} designs drawn is infeasible: "
        f"{'; '.join(shares)}; change the cap under constraints, or the choices"
    )
