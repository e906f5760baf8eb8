"""thop's own words about a network, compared with the exact count."""

import pytest

from detector.architecture.cost import cost
from detector.config.presets import load_preset
from detector.network.counters import thop_cost, thop_profile
from detector.network.model import build_detector


@pytest.mark.parametrize(
    ("name", "without_rule"),
    [("yunet_n", {}), ("scrfd_0.5g", {"GroupNorm": 416, "ScaleUnit": 3})],
)
def test_thop_counts_a_network_with_its_weights(name, without_rule):
    config, _ = load_preset(name)
    model = build_detector(config).eval()
    before = set(model.state_dict())
    found = thop_profile(model)
    assert (found.all_params, found.macs) == cost(config) == thop_cost(config)
    assert found.without_rule == without_rule
    assert set(model.state_dict()) == before and not model.training
    lines = found.text.splitlines()
    assert f"({float(found.macs)}, {float(found.params)})" in lines
    assert any(line.startswith("[INFO] Register count_convNd() for <class") for line in lines)
    assert f"'{found.params / 1e3:.3f}K')" in found.text


def test_thop_counts_at_the_given_size():
    config, _ = load_preset("yunet_s")
    small = thop_profile(build_detector(config), (320, 320))
    assert 4 * small.macs == cost(config)[1] and "torch.zeros(1, 3, 320, 320)" in small.text
