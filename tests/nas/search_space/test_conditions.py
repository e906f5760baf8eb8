"""Conditions of dimensions, which must hold in some draw, and for one dimension of a setting alone:
the checks find what the enumeration of all draws finds."""

import json
import random

import pytest

from detector.base.errors import UserError
from detector.base.yaml_file import read
from nas.search_space.dimensions import enumerate_params, parse
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from nas.search_space.yaml_parts import read_dimensions

VALUES = ["x", "y", "z"]
SHARED = "head.width"
"""The setting of the last two dimensions."""


def random_entries(rng):
    """Five dimensions, of which the later ones have conditions on earlier ones."""
    entries = {}
    for index, setting in enumerate(["neck.width", "head.layers", "head.block", SHARED, SHARED]):
        parents = rng.sample(list(entries), min(rng.choice([0, 1, 2]), len(entries)))
        when = {name: rng.sample(VALUES, rng.choice([1, 2])) for name in parents}
        entries[f"d{index}"] = {"sets": setting, "choice": VALUES, "when": when}
    return entries


def faults(entries):
    """What is wrong with them by the enumeration of their draws."""
    dimensions = [parse(name, entry) for name, entry in entries.items()]
    draws = enumerate_params(dimensions)
    return {d.name for d in dimensions if not any(d.name in draw for draw in draws)} | (
        {SHARED} if any({"d3", "d4"} <= draw.keys() for draw in draws) else set()
    )


def test_exactly_what_no_draw_or_two_dimensions_have_is_refused(tmp_path):
    rng, path, outcomes = random.Random(0), tmp_path / "space.json", set()
    for _ in range(300):
        entries = random_entries(rng)
        path.write_text(json.dumps({"dimensions": entries}))
        wrong = faults(entries)
        outcomes.add(tuple(sorted(wrong)))
        try:
            read_dimensions(read(path))
        except UserError as error:
            assert wrong and any(
                f"sets {SHARED}" in str(error)
                if name == SHARED
                else f"{name}: when: never" in str(error)
                for name in wrong
            )
        else:
            assert not wrong
    assert {(), (SHARED,), ("d2",), ("d4",)} <= outcomes


@pytest.mark.parametrize("value", ["0.3", "0.30000000000000004"])
def test_a_condition_on_a_step_holds_in_spite_of_rounding_errors(tmp_path, value):
    path = tmp_path / "steps.yaml"
    path.write_text(
        "name: steps\nbaseline: retinaface_mobile025\nrungs: [1]\nproxy: {size: 64}\n"
        "dimensions:\n  recipe.loss.match_iou: {float: [0.1, 0.5], step: 0.1}\n"
        f"  neck.width: {{choice: [16, 32], when: {{recipe.loss.match_iou: {value}}}}}\n"
    )
    space, trial = SearchSpace.load(path), RandomTrial("steps")
    assert sum("neck.width" in space.suggest(trial) for _ in range(200)) > 20
