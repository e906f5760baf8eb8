"""A budget of MACs: every legal draw meets it, the same parameters always give the same design."""

import helpers
import pytest

from detector.architecture.cost import cost
from detector.base.errors import ConfigError, UserError
from detector.config.detector import arch_hash
from detector.config.presets import load_preset
from nas.engine.gate import evaluate_cost
from nas.engine.open_study import check_unchanged, space_hash
from nas.engine.options import SearchOptions
from nas.search_space.mac_budget import Budget
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace

SCRFD = SPACES / "scrfd.yaml"
BASELINES = {0.5e9: "scrfd_0.5g", 2.5e9: "scrfd_2.5g", 10e9: "scrfd_10g"}
# The published designs by relative widths, which match them to within 16 channels a row.
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
    proposals = [
        evaluate_cost(space, space.suggest(trial)) for _ in range(60 if macs < 1e9 else 20)
    ]
    legal = [proposal for proposal in proposals if proposal.violation is None]
    assert len(legal) >= 4
    for proposal in legal:
        assert abs(cost(proposal.detector, (480, 640))[1] / macs - 1) <= 0.02
        assert all(width % 8 == 0 for width in proposal.detector.backbone.widths)
    assert len({proposal.design for proposal in legal}) == len(legal)
    for proposal in proposals:
        if proposal.violation is not None:  # neck, head or stem leave nothing to the backbone
            assert proposal.cost.macs > space.constraints.max_macs
    again = SearchSpace.load(SCRFD, macs).resolve(legal[0].params)[0]
    assert arch_hash(again) == legal[0].design


@pytest.mark.parametrize("macs, preset", BASELINES.items())
def test_the_published_design_of_a_budget_is_the_baseline_and_nearly_a_draw(macs, preset):
    space = SearchSpace.load(SCRFD, macs)
    published = load_preset(preset)[0]
    assert space.base == published
    proposal = evaluate_cost(space, PUBLISHED[macs] | {"recipe.optimizer.lr": 0.01})
    assert proposal.violation is None
    ours, theirs = proposal.detector.backbone, published.backbone
    assert (ours.kind, ours.variant, ours.stem, ours.depths) == (
        theirs.kind,
        theirs.variant,
        theirs.stem,
        theirs.depths,
    )
    assert max(abs(a - b) for a, b in zip(ours.widths, theirs.widths)) <= 16
    assert proposal.detector.neck == published.neck
    assert proposal.detector.head.layers == published.head.layers


def test_what_is_over_the_budget_without_a_backbone_is_infeasible():
    space = SearchSpace.load(SCRFD, 0.5e9)
    wide = PUBLISHED[2.5e9] | {
        "neck.width": 128,
        "head.layers": 4,
        "head.width": 256,
        "recipe.optimizer.lr": 0.01,
    }
    assert "over max_macs 680,000,000" in evaluate_cost(space, wide).violation


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


def test_a_study_is_resumed_with_its_own_budget_alone():
    options = SearchOptions(space=str(SCRFD))
    space = SearchSpace.load(SCRFD, 0.5e9)
    manifest = helpers.manifest(
        space_hash=space_hash(SCRFD), budget=space.budget.to_dict(), space_text=SCRFD.read_text()
    )
    check_unchanged(options, manifest, space)
    with pytest.raises(
        UserError,
        match=r"started with a budget of 0.5 G MACs at 640×480 ± 2 %, now "
        "it is 10 G MACs .*give --budget 0.5G",
    ):
        check_unchanged(options, manifest, SearchSpace.load(SCRFD, 10e9))
