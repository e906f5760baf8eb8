"""Designs as numbers."""

import pytest

from detector.config.presets import load_preset
from nas.samplers.features import features
from trials.record import Cost


def test_kernels_blocks_and_middle_widths_are_features_of_their_levels():
    detector, recipe = load_preset("damofd_2.5g")
    numbers = features(detector, recipe, Cost.of(detector))
    assert [2 ** numbers[f"backbone.kernel{k}"] for k in (2, 3, 4, 5)] == pytest.approx(
        [3, 3, 5, 5]
    )
    assert 2 ** numbers["backbone.mid_width2"] == pytest.approx(24)
    assert 2 ** numbers["backbone.blocks5"] == pytest.approx(8)
    assert numbers["backbone.block4=basic"] == numbers["backbone.block5=bottleneck"] == 1
    others = features(*load_preset("scrfd_2.5g"), Cost(params=1, macs=1))
    assert not [name for name in others if "kernel" in name or "mid_width" in name]
