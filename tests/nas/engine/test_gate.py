"""New designs pass, duplicates are redrawn, and an exhausted or infeasible space is an error."""

import itertools
import re
from dataclasses import replace

import pytest

from detector.architecture.cost import cost
from detector.base.errors import UserError
from detector.config.detector import arch_hash
from nas.engine.gate import check_feasible, next_proposal
from nas.samplers.proposer import Proposer
from nas.search_space.space import SearchSpace
from trials.objective import Objective
from trials.record import Status

TINY = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  neck.width: {choice: [16, 32]}
  neck.levels: {choice: [P3-P5, P2-P4]}
  context.kind: {choice: [ssh, none]}
proxy: {size: 160}
rungs: [1]
"""


def space_of(tmp_path, text=TINY):
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return SearchSpace.load(path)


def record(proposal, number):
    return proposal.record(number, Objective())


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_tiny_space_is_sampled_to_the_last_design_and_then_exhausted(tmp_path, sampler):
    space, records = space_of(tmp_path), []
    for number in range(8):
        records.append(record(next_proposal(space, Proposer(space, sampler), records), number))
    assert len({r.design for r in records}) == len({r.identity for r in records}) == 8
    with pytest.raises(UserError) as caught:
        next_proposal(space, Proposer(space, sampler), records, max_draws=200)
    assert str(caught.value).endswith(
        "tiny.yaml: the space is exhausted: 200 draws gave no new design after 8 feasible and 0 "
        "infeasible ones; it has at most 8 designs; ask for fewer --trials or add choices"
    )


def test_a_proposal_is_what_its_parameters_resolve_to(tmp_path):
    space = space_of(tmp_path)
    proposal = next_proposal(space, Proposer(space, "random"), [])
    assert (proposal.detector, proposal.recipe) == space.resolve(proposal.params)
    assert (proposal.cost.params, proposal.cost.macs) == cost(proposal.detector)
    assert proposal.design == arch_hash(proposal.detector)
    assert proposal.violation is None
    assert proposal.identity == record(proposal, 0).identity


def test_infeasible_designs_have_a_reason_and_are_not_proposed_again(tmp_path):
    space, records = space_of(tmp_path, TINY + "constraints: {max_macs: 600e6}\n"), []
    with pytest.raises(
        UserError,
        match=r"exhausted: 300 draws gave no new design after \d feasible and \d infeasible",
    ):
        for number in itertools.count():
            records.append(
                record(next_proposal(space, Proposer(space), records, max_draws=300), number)
            )
    assert len(records) == 8
    for r in records:
        assert (r.status is Status.INFEASIBLE) == (r.cost.macs > 600e6)
        if r.reason:
            assert r.reason == f"{r.cost.macs:,} MACs at 640×640 over max_macs 600,000,000"
    assert {r.status for r in records} == {Status.INFEASIBLE, Status.RUNNING}


def test_a_space_without_feasible_designs_is_an_error_with_the_smallest_value(tmp_path):
    space = space_of(tmp_path, TINY + "constraints: {max_params: 1000}\n")
    rule = (
        r"all 50 sampled designs are infeasible: 50 over max_params 1,000, "
        r"the smallest with [0-9,]+; change"
    )
    with pytest.raises(UserError, match=rule) as caught:
        check_feasible(space, max_draws=50)
    smallest = min(
        cost(space.resolve({"neck.width": 16, "neck.levels": levels, "context.kind": "none"})[0])[0]
        for levels in ("P3-P5", "P2-P4")
    )
    match = re.search("smallest with ([0-9,]+)", str(caught.value))
    assert int(match[1].replace(",", "")) == smallest
    check_feasible(space_of(tmp_path))


def test_a_search_gives_up_after_infeasible_designs_only(tmp_path):
    space = space_of(
        tmp_path,
        TINY.replace("dimensions:", "dimensions:\n  recipe.optimizer.lr: {float: [0.001, 0.1]}")
        + "constraints: {max_macs: 1000}\n",
    )
    records = []
    with pytest.raises(
        UserError, match="all 20 sampled designs are infeasible: 20 over max_macs 1,000"
    ):
        for number in itertools.count():
            proposal = next_proposal(space, Proposer(space), records, max_draws=20)
            records.append(record(proposal, number))
    assert len(records) == 20


def test_designs_that_are_infeasible_for_other_reasons_are_counted(tmp_path):
    space, records = space_of(tmp_path), []
    for number in range(3):
        proposal = next_proposal(space, Proposer(space, "random"), records)
        proposal = replace(proposal, violation="latency could not be measured: out of memory")
        records.append(record(proposal, number))
    message = "all 3 sampled designs are infeasible: 3 for other reasons; change"
    with pytest.raises(UserError, match=message):
        next_proposal(space, Proposer(space, "random"), records, max_draws=3)


def test_a_design_with_two_recipes_is_two_trials(tmp_path):
    rates = "dimensions:\n  recipe.optimizer.lr: {choice: [0.001, 0.01]}"
    space, records = space_of(tmp_path, TINY.replace("dimensions:", rates)), []
    for number in range(16):
        records.append(record(next_proposal(space, Proposer(space, "random"), records), number))
    assert len({r.design for r in records}) == 8 == space.size()
