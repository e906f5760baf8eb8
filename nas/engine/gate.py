"""The gate before training: proposal → design → hash → cost → caps. Duplicates are redrawn."""

from __future__ import annotations

import time
from collections.abc import Sequence
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

MAX_DRAWS = 1000
"""Draws without a new feasible design after which a search gives up."""


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
    """Which cap it violates, with the numbers; None if it is feasible."""

    @property
    def identity(self) -> str:
        """As `TrialRecord.identity`."""
        return identity_of(self.design, self.recipe)

    def line(self, number: int, note: str = "") -> str:
        """The design with its cost, as a line of a numbered list."""
        note = note or (f"infeasible: {self.violation}" if self.violation else "")
        return (
            f"{number:4d}  {describe(self.detector)}: {count(self.cost.params)} params, "
            f"{count(self.cost.macs)} MACs" + (f" ({note})" if note else "")
        )

    def record(self, number: int, objective: Objective, source: str = "sampled") -> TrialRecord:
        """The record of this design as trial `number`: running, or infeasible."""
        now, feasible = time.time(), self.violation is None
        record = TrialRecord(
            number=number,
            status=Status.RUNNING if feasible else Status.INFEASIBLE,
            design=self.design,
            detector=self.detector,
            recipe=self.recipe,
            params=self.params,
            cost=self.cost,
            speed_score=0.0,
            source=source,
            reason=self.violation,
            started=now,
            ended=None if feasible else now,
        )
        return objective.applied_to(record)


def evaluate_cost(space: SearchSpace, params: Params) -> Proposal:
    """The design of some parameters, its cost, and whether it is feasible."""
    return _proposal(space, params, *space.resolve(params))


def baseline(space: SearchSpace) -> Proposal:
    """The space's baseline, which is trained even if it violates a cap."""
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
    space: SearchSpace,
    proposer: Proposer,
    records: Sequence[TrialRecord],
    max_draws: int = MAX_DRAWS,
) -> Proposal:
    """The next proposal that no record has. It may be infeasible: record it and call this again.

    Depends only on the records and the proposer's seed.

    Raises:
        UserError: `max_draws` draws gave no new design, or the last `max_draws` records are all
            infeasible.
    """
    infeasible = list(takewhile(lambda r: r.status is Status.INFEASIBLE, reversed(records)))
    if len(infeasible) >= max_draws:
        raise _all_infeasible(space, [r.cost for r in infeasible])
    seen = {record.identity for record in records}
    proposer.update(records)
    for attempt in range(max_draws):
        proposal = evaluate_cost(space, proposer.ask(attempt))
        if proposal.identity not in seen:
            return proposal
    size = space.size()
    bound = f"; it has at most {size:,} designs" if size is not None else ""
    num_feasible = sum(r.status is not Status.INFEASIBLE for r in records)
    raise UserError(
        f"{space.path}: the space is exhausted: {max_draws:,} draws gave no new design after "
        f"{num_feasible} feasible and {len(records) - num_feasible} infeasible ones{bound}; ask "
        "for fewer --trials or add choices"
    )


def check_feasible(space: SearchSpace, max_draws: int = MAX_DRAWS) -> None:
    """Check that random draws find a feasible design, before a study is created.

    Raises:
        UserError: none does; the message says which caps are violated, and the value nearest to
            each.
    """
    proposer, costs = Proposer(space, "random"), []
    for attempt in range(max_draws):
        proposal = evaluate_cost(space, proposer.ask(attempt))
        if proposal.violation is None:
            return
        costs.append(proposal.cost)
    raise _all_infeasible(space, costs)


def _all_infeasible(space: SearchSpace, costs: Sequence[Cost]) -> UserError:
    by_cap: dict[str, list[Cost]] = {}
    for cost in costs:
        by_cap.setdefault(space.constraints.violated_cap(cost) or "", []).append(cost)
    others = by_cap.pop("", [])  # latency that could not be measured
    violations = []
    for cap, violating_costs in sorted(by_cap.items()):
        bound, _, quantity = cap.partition("_")
        values = [getattr(cost, quantity) for cost in violating_costs]
        nearest = min(values) if bound == "max" else max(values)
        violations.append(
            f"{len(values)} {'over' if bound == 'max' else 'under'} {cap} "
            f"{getattr(space.constraints, cap):,}, the "
            f"{'smallest' if bound == 'max' else 'largest'} with {nearest:,}"
        )
    if others:
        violations.append(f"{len(others)} for other reasons")
    return UserError(
        f"{space.path}: all {len(costs)} sampled designs are infeasible: "
        f"{'; '.join(violations)}; change the cap under constraints, or the choices"
    )
