"""What a design costs, against published numbers, the built detector and thop."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from detector.cost import cost, layer_costs, thop_cost
from detector.model import blank_detector

PUBLISHED = [  # preset, (height, width), parameters, G MACs as rounded where published
    ("retinaface_mobile025", (640, 640), 426_608, "1.0297"),
    ("retinaface_resnet50", (640, 640), 27_293_600, "44.66"),
    ("retinaface_resnet18_p2p6", (480, 480), 11_636_448, "9.998"),
    ("tiny_ssd300", (300, 300), 1_033_668, "0.5235"),
    ("scrfd_0.5g", (480, 640), 572_741, "0.517"),
    ("scrfd_1g", (480, 640), 635_565, "0.998"),
    ("scrfd_2.5g", (480, 640), 671_761, "2.537"),
    ("scrfd_10g", (480, 640), 3_860_225, "9.995"),
    ("scrfd_34g", (480, 640), 9_802_737, "34.285"),
    ("yunet_n", (640, 640), 75_856, "0.5854"),
    ("yunet_s", (640, 640), 54_608, "0.3785"),
]
PROJECT = Path(__file__).resolve().parents[2]
PRESETS = sorted((PROJECT / "search_spaces" / "presets").glob("*.yaml"))


@pytest.mark.parametrize(("name", "size", "params", "gmacs"), PUBLISHED)
def test_published_designs_cost_what_was_published(preset, name, size, params, gmacs):
    counted, macs = cost(preset(name), size)
    assert counted == params
    assert f"{macs / 1e9:.{len(gmacs.split('.')[1])}f}" == gmacs


@pytest.mark.parametrize("part, params", [
    ("backbone", 213_072), ("neck", 103_040), ("context", 3 * 34_752), ("heads", 6_240)])
def test_baseline_splits_as_published(preset, part, params):
    layers = layer_costs(preset("retinaface_mobile025"))
    assert sum(p for name, p, _ in layers if name.startswith(part)) == params


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_cost_what_thop_and_their_headers_say(preset, path):
    config = preset(path.stem)
    assert cost(config) == thop_cost(config)
    params, macs = cost(config)
    header = path.read_text().split("detector:")[0]
    assert f"{params:,} parameters" in header
    assert any(f"{macs / 1e9:.{digits}f} G" in header for digits in (2, 4))


@pytest.mark.parametrize("seed", range(48))
def test_random_designs_cost_what_gets_built_and_thop_counts(random_design, seed):
    config = random_design(seed)
    rng = random.Random(seed)
    size = (rng.randint(64, 300), rng.randint(64, 300))
    assert cost(config, size) == thop_cost(config, size)


@pytest.mark.parametrize("seed", range(6))
def test_layers_are_named_as_the_modules_they_become(random_design, seed):
    model = blank_detector(random_design(seed))
    layers = layer_costs(random_design(seed))
    names = [name for name, _, _ in layers]
    assert len(set(names)) == len(names)
    for name, params, _ in layers:
        assert sum(p.numel() for p in model.get_submodule(name).parameters()) == params


def test_costing_imports_no_torch():
    code = "import sys, detector.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
