"""The growth of accuracy in a search space."""

from dataclasses import replace

import pytest

from detector.base.errors import UserError
from nas.search_space.space import SearchSpace
from trials.growth import Growth
from trials.objective import Objective

GROWTH = Growth(base=0.3, per_decade=1.5)


def test_a_space_names_the_place_of_a_wrong_key(tmp_path, tiny_space):
    text = tiny_space.read_text()
    assert "\nobjective:" not in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text + "\nobjective: {growth: {base: 0.3}}\n")
    with pytest.raises(UserError, match=r"wrong\.yaml.*growth.*per_decade"):
        SearchSpace.load(path)


def test_the_built_in_scenes_have_no_growth(tiny_space, tiny_data):
    space = SearchSpace.load(tiny_space)
    space = replace(space, objective=Objective(growth=GROWTH))
    assert space.on(tiny_data).objective.growth is None
    assert space.on(replace(tiny_data, root=tiny_space.parent)).objective.growth == GROWTH
