"""Designs per second whose cost is computed, which a search does before it trains anything."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from detector.architecture.cost import cost
from detector.config.detector import Detector

PRESETS = Path(__file__).resolve().parents[2] / "search_spaces" / "presets"


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["retinaface_mobile025", "retinaface_resnet152"])
def test_at_least_500_designs_a_second(name):
    config = Detector.from_dict(yaml.safe_load((PRESETS / f"{name}.yaml").read_text())["detector"])
    designs = [replace(config, neck=replace(config.neck, width=4 * k)) for k in range(1, 201)]
    start = time.process_time()
    for design in designs:
        cost(design)
    assert len(designs) / (time.process_time() - start) >= 500
