"""Parts of networks that plugins register, above all the ghost backbone of examples/plugins."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from helpers import TINY_DETECTOR, registrations_undone

from detector.architecture.cost import cost
from detector.architecture.custom import (
    CustomNeck,
    register_backbone,
    register_head_block,
    register_neck,
    register_predictor,
)
from detector.architecture.layers import Conv, separable
from detector.base.errors import ConfigError
from detector.base.plugins import load_plugin
from detector.config.detector import Backbone, Detector, arch_hash, canonical
from detector.network.counters import thop_cost
from detector.network.model import build_detector
from detector.network.modules import build
from trials.names import describe

GHOST = Path(__file__).resolve().parents[3] / "examples/plugins/ghost_backbone.py"


@pytest.fixture(autouse=True)
def undone():
    with registrations_undone():
        yield


@pytest.fixture
def ghost() -> Detector:
    load_plugin(GHOST)
    backbone = Backbone(kind="ghost", stem=16, widths=(24, 40, 112, 160), depths=(2, 2, 4, 2))
    return replace(TINY_DETECTOR, backbone=backbone)


def test_a_backbone_costs_what_gets_built_and_thop_counts(ghost):
    assert cost(ghost) == thop_cost(ghost)
    assert cost(ghost)[0] == sum(p.numel() for p in build_detector(ghost).parameters())


def test_a_ghost_module_costs_as_in_its_paper(ghost):
    """Two kinds of convolutions of half of the channels each: c·n/2 and 9·n/2 products for each
    cell, against c·n of a pointwise convolution; batch normalisation counts 4 for each output."""
    from detector.architecture.plan import plan

    layer = plan(ghost).backbone.stages[5].layers[1].layers[0]
    assert (layer.cin, layer.cout) == (160, 160)
    parts = [(leaf.macs(size), leaf.params) for _, leaf, size in layer.leaves((20, 20), "x")]
    macs, params = map(sum, zip(*parts))
    assert macs == 400 * (160 * 80 + 9 * 80 + 4 * 160)
    assert params == 160 * 80 + 9 * 80 + 2 * 160


def test_a_backbone_is_known_to_names_hashes_and_plain_data(ghost):
    assert describe(ghost).startswith("ghost w1 d2-2-4-2 ")
    assert Detector.from_dict(ghost.to_dict()) == ghost
    assert arch_hash(ghost) != arch_hash(TINY_DETECTOR)


def test_a_backbone_learns_and_is_exported(ghost, tmp_path):
    from detector.export.exporter import export
    from detector.export.runtime import load_exported

    shallow = replace(ghost, backbone=replace(ghost.backbone, depths=(1, 1, 2, 1)))
    model = build_detector(shallow)  # a deep one is traced for longer
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    sum(output.square().sum() for output in model(images).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    path = tmp_path / "ghost.onnx"
    export(model, shallow, path)
    own = model(images)
    exported = load_exported(path)(images)
    for name, output in own.items():
        torch.testing.assert_close(exported[name], output, rtol=1e-3, atol=1e-3)


def test_a_space_varies_it(ghost):
    from nas.search_space.space import SearchSpace

    space = SearchSpace.load(GHOST.with_name("ghost.yaml"))
    params = {
        "backbone.kind": "ghost",
        "backbone.width": 0.5,
        "backbone.depth4": 6,
        "neck.width": 16,
        "recipe.optimizer.lr": 0.02,
    }
    detector, _ = space.resolve(params)
    assert detector.backbone.widths == (16, 24, 56, 80)  # 12 and 20 round to multiples of 8
    assert detector.backbone.depths == (2, 2, 6, 2)
    assert cost(detector) == thop_cost(detector)


def test_weights_of_one_are_inherited_by_a_larger_one(ghost):
    from detector.weights.remap import remap

    larger = replace(ghost, backbone=replace(ghost.backbone, depths=(2, 2, 5, 2)))
    source, initial = (build_detector(d).state_dict() for d in (ghost, larger))
    source = {name: torch.full_like(value, 7) for name, value in source.items()}
    state, origins = remap(ghost, source, larger, initial)
    assert sum(origin.copied == origin.params for origin in origins) >= len(origins) - 3
    assert (state["backbone.stages.4.1.0.cheap.conv.weight"] == 7).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"levels": (3, 2, 4, 5)}, "levels .* must be ascending, in 1–5"),
        ({"levels": (2, 3, 4, 6)}, "levels .* must be ascending, in 1–5"),
        ({"widths": (8, 8)}, "4 levels, 2 widths and 4 depths"),
        ({"depths": (1, 0, 1, 1)}, "must be at least 1"),
    ],
)
def test_rows_that_do_not_fit(changes, told):
    rows = {"levels": (2, 3, 4, 5), "widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}
    with pytest.raises(ConfigError, match=told):
        register_backbone("mine", short="mine", stem=8, **rows | changes)


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        (lambda config, top: [[Conv(3, 8)]], "gives layers for 1 levels where 5 are needed"),
        (lambda config, top: [[Conv(3, 9)]] * top, "level 2 ends with 9 channels; it must have"),
        (lambda config, top: [][0], "backbone.kind mine fails: IndexError: list index out of ra"),
    ],
)
def test_layers_that_do_not_fit(stages, told):
    rows = {"levels": (2, 3, 4, 5), "widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}
    register_backbone("mine", short="mine", stem=8, **rows)(stages)
    design = replace(
        TINY_DETECTOR,
        backbone=Backbone(kind="mine", stem=8, widths=rows["widths"], depths=rows["depths"]),
    )
    with pytest.raises(ConfigError, match=told):
        cost(design)


@dataclass(frozen=True)
class Plain(CustomNeck):
    """A pointwise convolution of each level, nothing else."""

    laterals: dict

    def uses(self):
        for level, conv in self.laterals.items():
            yield f"neck.laterals.{level}", conv, level

    def module(self):
        laterals = self.laterals

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.laterals = torch.nn.ModuleDict({str(k): build(v) for k, v in laterals.items()})

            def forward(self, features):
                return [self.laterals[str(level)](features[level]) for level in laterals]

        return Module()


def test_a_neck_and_the_parts_of_a_head():
    @register_neck("plain")
    def plain(neck, channels):
        return Plain({level: Conv(channels[level], neck.width) for level in neck.levels})

    @register_head_block("wide")
    def wide(cin, cout):
        return Conv(cin, cout, 5, activation="relu")

    @register_predictor("last")
    def last(cin, cout):
        return Conv(cin, cout, 3, bias=True, norm=False)

    design = replace(
        TINY_DETECTOR,
        neck=replace(TINY_DETECTOR.neck, kind="plain"),
        head=replace(TINY_DETECTOR.head, block="wide", layers=1, width=24, predictor="last"),
    )
    assert cost(design) == thop_cost(design)
    model = build_detector(design).eval()
    outputs = model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert outputs["box_deltas"].shape == (1, 2 * (64 + 16 + 4), 4)
    assert "plain16" in describe(design) and "wide by-last" in describe(design)
    with pytest.raises(ConfigError, match="neck 'plain' exists already"):
        register_neck("plain")


def test_what_a_neck_reads_of_its_configuration_is_part_of_its_hash():
    @register_neck("merging")
    def merging(neck, channels):
        kernel = 3 if neck.shared_merge else 1
        return Plain({level: Conv(channels[level], neck.width, kernel) for level in neck.levels})

    neck = replace(TINY_DETECTOR.neck, kind="merging")
    designs = [
        replace(TINY_DETECTOR, neck=replace(neck, shared_merge=shared)) for shared in (False, True)
    ]
    assert cost(designs[0]) != cost(designs[1])
    assert arch_hash(designs[0]) != arch_hash(designs[1])
    assert "shared_merge" not in canonical(designs[0])["neck"]  # stored hashes are without it


def test_a_layer_with_other_channels_than_asked_for():
    register_predictor("wrong")(lambda cin, cout: separable(cin, cout + 1))
    design = replace(TINY_DETECTOR, head=replace(TINY_DETECTOR.head, predictor="wrong"))
    with pytest.raises(ConfigError, match=r"head\.predictor wrong: has 5 output channels where 4"):
        cost(design)
