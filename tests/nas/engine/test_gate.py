"""New designs pass, known ones are redrawn, and the gate says why when nothing is left."""

import itertools
import re

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


def record(found, number):
    return found.record(number, Objective())


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_tiny_space_is_drawn_to_the_last_design_then_said_to_be_exhausted(tmp_path, sampler):
    space, records = space_of(tmp_path), []
    for number in range(8):
        records.append(record(next_proposal(space, Proposer(space, sampler), records), number))
    assert len({r.design for r in records}) == len({r.identity for r in records}) == 8
    with pytest.raises(UserError) as caught:
        next_proposal(space, Proposer(space, sampler), records, tries=200)
    assert str(caught.value).endswith(
        "tiny.yaml: the space is exhausted: 200 draws brought nothing new after 8 legal and 0 "
        "infeasible designs; it has at most 8 designs; ask for fewer --trials or add choices"
    )


def test_what_is_drawn_is_what_resolves(tmp_path):
    space = space_of(tmp_path)
    found = next_proposal(space, Proposer(space, "random"), [])
    assert (found.detector, found.recipe) == space.resolve(found.params)
    assert (found.cost.params, found.cost.macs) == cost(found.detector)
    assert found.design == arch_hash(found.detector)
    assert found.violation is None
    assert found.identity == record(found, 0).identity


def test_infeasible_designs_come_with_their_numbers_and_stay_known(tmp_path):
    space, records = space_of(tmp_path, TINY + "constraints: {max_macs: 600e6}\n"), []
    with pytest.raises(
        UserError,
        match="exhausted: 300 draws brought nothing new after "
        r"\d legal and \d infeasible",
    ):
        for number in itertools.count():
            records.append(
                record(next_proposal(space, Proposer(space), records, tries=300), number)
            )
    assert len(records) == 8
    for r in records:
        assert (r.status is Status.INFEASIBLE) == (r.cost.macs > 600e6)
        if r.reason:
            assert r.reason == f"{r.cost.macs:,} MACs at 640×640 over max_macs 600,000,000"
    assert {r.status for r in records} == {Status.INFEASIBLE, Status.RUNNING}


def test_a_space_over_the_cap_is_refused_with_the_smallest_number(tmp_path):
    space = space_of(tmp_path, TINY + "constraints: {max_params: 1000}\n")
    rule = (
        r"every one of 50 designs drawn is infeasible: 50 over max_params 1,000, "
        r"the smallest with [0-9,]+; change"
    )
    with pytest.raises(UserError, match=rule) as caught:
        check_feasible(space, tries=50)
    smallest = min(
        cost(space.resolve({"neck.width": 16, "neck.levels": levels, "context.kind": "none"})[0])[0]
        for levels in ("P3-P5", "P2-P4")
    )
    told = re.search("smallest with ([0-9,]+)", str(caught.value))
    assert int(told[1].replace(",", "")) == smallest
    check_feasible(space_of(tmp_path))


def test_a_search_gives_up_where_only_infeasible_designs_come(tmp_path):
    space = space_of(
        tmp_path,
        TINY.replace("dimensions:", "dimensions:\n  recipe.optimizer.lr: {float: [0.001, 0.1]}")
        + "constraints: {max_macs: 1000}\n",
    )
    records = []
    with pytest.raises(
        UserError, match="every one of 20 designs drawn is infeasible: 20 over max_macs 1,000"
    ):
        for number in itertools.count():
            records.append(record(next_proposal(space, Proposer(space), records, tries=20), number))
    assert len(records) == 20


def test_one_design_with_two_recipes_is_two_trials(tmp_path):
    space, records = (
        space_of(
            tmp_path,
            TINY.replace(
                "dimensions:", "dimensions:\n  recipe.optimizer.lr: {choice: [0.001, 0.01]}"
            ),
        ),
        [],
    )
    for number in range(16):
        records.append(record(next_proposal(space, Proposer(space, "random"), records), number))
    assert len({r.design for r in records}) == 8 == space.size()
