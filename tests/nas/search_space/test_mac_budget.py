"""A budget of MACs: every legal draw meets it, the same parameters always give the same design."""

from types import SimpleNamespace

import pytest

from detector.architecture.cost import cost
from detector.base.errors import ConfigError, UserError
from detector.config.detector import arch_hash
from detector.config.presets import load_preset
from nas import search
from nas.engine.gate import weigh
from nas.search_space.mac_budget import Budget
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace

SCRFD = SPACES / "scrfd.yaml"
BASELINES = {0.5e9: "scrfd_0.5g", 2.5e9: "scrfd_2.5g", 10e9: "scrfd_10g"}
# The published designs, told by relative widths; they are met to within 8 channels a row.
PUBLISHED = {
    0.5e9: {
        "block": "separable",
        "backbone.stem": 16,
        "backbone.depth2": 2,
        "backbone.depth3": 3,
        "backbone.depth4": 2,
        "backbone.depth5": 6,
        "backbone.width3": 0.875,
        "backbone.width4": 1,
        "backbone.width5": 1,
        "neck.width": 16,
        "head.layers": 2,
        "head.width": 64,
    },
    2.5e9: {
        "block": "basic",
        "backbone.stem": 24,
        "backbone.depth2": 3,
        "backbone.depth3": 5,
        "backbone.depth4": 3,
        "backbone.depth5": 2,
        "backbone.width3": 1,
        "backbone.width4": 0.5,
        "backbone.width5": 0.375,
        "neck.width": 24,
        "head.layers": 2,
        "head.width": 64,
    },
    10e9: {
        "block": "basic",
        "backbone.stem": 56,
        "backbone.depth2": 3,
        "backbone.depth3": 4,
        "backbone.depth4": 2,
        "backbone.depth5": 3,
        "backbone.width3": 0.75,
        "backbone.width4": 0.375,
        "backbone.width5": 0.5,
        "neck.width": 56,
        "head.layers": 3,
        "head.width": 80,
    },
}


@pytest.mark.parametrize("macs", BASELINES)
def test_legal_draws_cost_the_budget_and_differ(macs):
    space, trial = SearchSpace.load(SCRFD, macs), RandomTrial("budget")
    drawn = [weigh(space, space.suggest(trial)) for _ in range(60 if macs < 1e9 else 20)]
    legal = [found for found in drawn if found.violation is None]
    assert len(legal) >= 4
    for found in legal:
        assert abs(cost(found.detector, (480, 640))[1] / macs - 1) <= 0.02
        assert all(width % 8 == 0 for width in found.detector.backbone.widths)
    assert len({found.design for found in legal}) == len(legal)
    for found in drawn:
        if found.violation is not None:  # neck and head, or a stem, leave nothing to the backbone
            assert found.cost.macs > space.constraints.max_macs
    again = SearchSpace.load(SCRFD, macs).resolve(legal[0].params)[0]
    assert arch_hash(again) == legal[0].design


@pytest.mark.parametrize("macs, preset", BASELINES.items())
def test_the_published_design_of_a_budget_is_the_baseline_and_nearly_a_draw(macs, preset):
    space = SearchSpace.load(SCRFD, macs)
    published = load_preset(preset)[0]
    assert space.base == published
    found = weigh(space, PUBLISHED[macs] | {"recipe.optimizer.lr": 0.01})
    assert found.violation is None
    ours, theirs = found.detector.backbone, published.backbone
    assert (ours.kind, ours.variant, ours.stem, ours.depths) == (
        theirs.kind,
        theirs.variant,
        theirs.stem,
        theirs.depths,
    )
    assert max(abs(a - b) for a, b in zip(ours.widths, theirs.widths)) <= 16
    assert found.detector.neck == published.neck
    assert found.detector.head.layers == published.head.layers


def test_what_is_over_the_budget_without_a_backbone_is_infeasible():
    space = SearchSpace.load(SCRFD, 0.5e9)
    wide = PUBLISHED[2.5e9] | {
        "neck.width": 128,
        "head.layers": 4,
        "head.width": 256,
        "recipe.optimizer.lr": 0.01,
    }
    assert "over max_macs 680,000,000" in weigh(space, wide).violation


def test_caps_are_the_budget_in_proportion_to_the_area():
    assert Budget(macs=750, tolerance=0.1, size=(640, 480)).caps == (900, 1100)
    assert str(Budget(macs=500_000_000)) == "0.5 G MACs at 640×480 ± 2 %"


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"macs": 0}, "greater than 0"),
        ({"macs": 5, "tolerance": 2.0}, "between 0 and 1"),
        ({"macs": 5, "size": (640, 470)}, "multiples of 32"),
    ],
)
def test_a_budget_checks_itself(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Budget(**wrong)


def test_a_space_without_a_budget_takes_none():
    with pytest.raises(UserError, match="has no budget to change"):
        SearchSpace.load(SPACES / "quick.yaml", 1e9)


def test_a_study_goes_on_with_its_own_budget_alone():
    args = search.make_parser().parse_args(["--space", str(SCRFD)])
    begun = SearchSpace.load(SCRFD, 0.5e9)
    study = SimpleNamespace(
        name="scrfd-001",
        manifest={"space_hash": search._hash(SCRFD), "budget": begun.budget.to_dict()},
    )
    search._check_same(args, study, begun)
    with pytest.raises(
        UserError,
        match=r"begun with a budget of 0.5 G MACs at 640×480 ± 2 %, now "
        "it is 10 G MACs .*give --budget 0.5G",
    ):
        search._check_same(args, study, SearchSpace.load(SCRFD, 10e9))
