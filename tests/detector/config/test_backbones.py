"""The table of backbones: a new kind is a row of it and a file of layers."""

import sys
import types
from importlib.util import find_spec

import pytest
import torch

from detector.architecture.cost import cost
from detector.architecture.layers import Conv
from detector.base.errors import ConfigError
from detector.config.backbones import (
    BACKBONES,
    OPTIONS,
    ROW_OPTIONS,
    BackboneSpec,
    Published,
    level_rows,
    published_backbone,
    scaled,
    spread,
)
from detector.config.detector import Backbone, Context, Detector, Neck, arch_hash, canonical
from detector.network.counters import thop_cost
from detector.network.model import build_detector
from detector.weights.remap import remap


@pytest.mark.parametrize("kind", BACKBONES)
def test_rows_are_whole(kind):
    spec = BACKBONES[kind]
    assert find_spec(f"detector.architecture.backbones.{spec.layers}")
    assert list(spec.levels) == sorted(spec.levels)
    assert set(spec.options) <= set(OPTIONS)
    assert "basic" in spec.published
    for block, published in spec.published.items():
        assert len(published.widths) == len(published.depths) == len(spec.levels)
        backbone = Backbone(
            kind=kind,
            stem=published.stem,
            widths=published.widths,
            depths=published.depths,
            block=block,
            **{
                key: getattr(published, key)
                for key in (*ROW_OPTIONS, "stem_depth")
                if key in spec.options
            },
        )
        assert backbone.channels(4) == backbone.widths[level_rows(kind, 4)[-1]] * (
            published.out_factor
        )
    names = [p.short for spec in BACKBONES.values() for p in spec.published.values()]
    assert len(set(names)) == len(names)


@pytest.fixture
def new_kind(monkeypatch):
    """A kind `plain`: a stem, and rows of 3×3 convolutions, the first of each with stride 2."""

    def stages(config, top):
        channels = config.stem
        result = [[Conv(3, channels, 3, stride=2, activation=config.activation)]]
        for level, width, depth in zip(config.spec.levels, config.widths, config.depths):
            if level > top:
                break
            result.append([])
            for block in range(depth):
                stride = 1 if block else 2
                result[-1].append(
                    Conv(channels, width, 3, stride=stride, activation=config.activation)
                )
                channels = width
        return result

    layers = types.ModuleType("detector.architecture.backbones.plain")
    layers.stages = stages
    monkeypatch.setitem(sys.modules, layers.__name__, layers)
    row = BackboneSpec(
        layers="plain",
        levels=(2, 3, 4, 5),
        published={
            "basic": Published(short="plain", stem=8, widths=(8, 16, 32, 64), depths=(1, 1, 2, 1))
        },
    )
    monkeypatch.setitem(BACKBONES, "plain", row)


def plain(widths=(8, 12, 16, 20), **changes):
    return Detector(
        backbone=Backbone(kind="plain", stem=6, widths=widths, depths=(1, 2, 1, 1), **changes),
        neck=Neck(levels=(3, 4, 5), width=16),
        context=Context(kind="none"),
    )


def test_a_row_and_a_file_are_all_that_a_new_kind_needs(new_kind):
    config = plain()
    assert cost(config) == thop_cost(config)
    assert Detector.from_dict(config.to_dict()) == config
    assert not set(OPTIONS) & set(canonical(config)["backbone"])
    assert arch_hash(config) == arch_hash(plain(expansion=3, block="bottleneck"))
    outputs = build_detector(config)(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    assert outputs["box_deltas"].shape == (2, 2 * (8 * 12 + 4 * 6 + 2 * 3), 4)

    narrow = build_detector(config, seed=1).state_dict()
    wide = plain(widths=(8, 12, 24, 20))
    remapped, origins = remap(config, narrow, wide, build_detector(wide, seed=2).state_dict())
    assert all(origin.copied for origin in origins)
    key = "backbone.stages.1.0.conv.weight"
    assert remapped[key].equal(narrow[key])


def test_kinds_and_blocks_that_there_are_not_are_named():
    with pytest.raises(ConfigError, match=r"backbone.kind: 'vgg' is not one of mobilenet_v1, "):
        published_backbone("vgg")
    with pytest.raises(ConfigError, match=r"backbone.block: 'wide' is not one of basic, bottlen"):
        published_backbone("resnet", "wide")
    assert published_backbone("yunet", "bottleneck") is published_backbone("yunet")
    with pytest.raises(ConfigError, match="resnet has no blocks at level 1; its levels are 2, 3"):
        level_rows("resnet", 1)


def test_channels_are_multiples_of_eight():
    assert [scaled(c) for c in (0.1, 8, 11.9, 12, 100)] == [8, 8, 8, 16, 104]


def test_blocks_are_spread_as_published():
    assert spread(7, (4, 3)) == (4, 3)
    assert spread(2, (4, 3)) == (1, 1)
    assert spread(14, (4, 3)) == (8, 6)
    with pytest.raises(ConfigError, match="1 blocks; this level has 2 rows of blocks"):
        spread(1, (4, 3))
