"""Cost of designs against published numbers, the built detector and thop."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detector.architecture.cost import cost, fewest_normalized_cells, layer_costs
from detector.inference.preset_table import PUBLISHED
from detector.network.counters import thop_cost
from detector.network.model import blank_detector, build_detector

PROJECT = Path(__file__).resolve().parents[3]
PRESETS = sorted((PROJECT / "search_spaces" / "presets").glob("*.yaml"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_designs_cost_what_was_published(preset, name):
    figures = PUBLISHED[name]
    params, macs = cost(preset(name), figures.size)
    assert params == figures.params
    assert f"{macs / 1e9:.{len(figures.gmacs.split('.')[1])}f}" == figures.gmacs


@pytest.mark.parametrize(
    "part, params",
    [("backbone", 213_072), ("neck", 103_040), ("context", 3 * 34_752), ("heads", 6_240)],
)
def test_parts_of_the_baseline_cost_what_was_published(preset, part, params):
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


@pytest.mark.parametrize("seed", range(26))
def test_one_cell_to_normalize_is_what_torch_refuses(random_design, seed):
    """One image in training mode: torch's batch normalisation needs more than one value."""
    config = random_design(seed)
    for side in (32, 64):
        model = build_detector(config).train()
        image = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
        if fewest_normalized_cells(config, (side, side)) == 1:
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                model(image)
        else:
            model(image)
