"""search_spaces/yunet.yaml, and the designs to try first in it."""

import helpers
import yaml

from detector.architecture.cost import cost
from detector.config.detector import arch_hash
from detector.config.presets import load_preset
from nas.search_space.space import SPACES, SearchSpace


def test_the_baseline_of_the_yunet_space_is_a_point_of_it():
    space = SearchSpace.load(SPACES / "yunet.yaml")
    detector, recipe = space.resolve(
        {
            "early": "x16",
            "stride4": "x32_64",
            "width": "x64",
            "backbone.depth2": 4,
            "backbone.depth3": 2,
            "backbone.depth4": 2,
            "backbone.depth5": 2,
            **helpers.YUNET_S_POINT,
        }
    )
    assert arch_hash(detector) == arch_hash(space.base) == arch_hash(load_preset("yunet_s")[0])
    assert recipe.loss == space.baseline[1].loss


def test_the_designs_of_the_example_are_feasible_points_of_it():
    space = SearchSpace.load(SPACES / "yunet.yaml")
    designs = yaml.safe_load((helpers.PROJECT / "examples/yunet_designs.yaml").read_text())[
        "designs"
    ]
    assert len(designs) == 5
    for design in designs:
        detector, _ = space.resolve(design["params"])
        assert space.constraints.min_macs < cost(detector)[1] < space.constraints.max_macs
