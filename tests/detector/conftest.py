"""Designs to test on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from detector.config import (
    ACTIVATIONS,
    ANCHOR_SETS,
    BACKBONE_ROWS,
    Anchors,
    Backbone,
    Context,
    Detector,
    Head,
    Neck,
)

PRESETS = Path(__file__).resolve().parents[2] / "search_spaces" / "presets"


@pytest.fixture(scope="session")
def preset():
    """Function: stem of a preset → its Detector."""
    def read(name: str) -> Detector:
        content = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
        return Detector.from_dict(content["detector"])
    return read


@pytest.fixture(scope="session")
def random_design():
    """Function: seed → a small Detector; seeds go round backbones, levels and contexts."""
    return _random_design


_LEVELS = ((3, 4, 5), (2,), (5,), (2, 3, 4), (3, 5), (2, 3, 4, 5, 6), (4, 7), (5, 6, 7), (3, 6),
           (4,), (2, 5), (2, 3, 4, 5, 6, 7), (3, 4))


def _random_design(seed: int) -> Detector:
    rng = random.Random(seed)
    kind = tuple(BACKBONE_ROWS)[seed % 3]
    rows = len(BACKBONE_ROWS[kind])
    levels = _LEVELS[seed % len(_LEVELS)]
    ratios = rng.choice([(1.0,), (0.5, 1.0, 1.3)])
    anchors = rng.choice([Anchors(name=rng.choice(list(ANCHOR_SETS))),
                          Anchors(sizes=tuple((8.0 * 2**k,) * rng.randint(1, 2) for k in levels),
                                  ratios=ratios)])
    return Detector(
        backbone=Backbone(
            kind=kind, stem=rng.randint(3, 12),
            widths=tuple(rng.randint(3, 24) for _ in range(rows)),
            depths=tuple(rng.randint(1, 3) for _ in range(rows)),
            block=rng.choice(["basic", "bottleneck"]), expansion=rng.choice([1, 2, 3]),
            activation=rng.choice(ACTIVATIONS)),
        neck=Neck(levels=levels, width=4 * rng.randint(1, 6), shared_merge=rng.random() < 0.5,
                  activation=rng.choice(ACTIVATIONS)),
        context=Context(kind=("ssh", "ssh_shared", "none", "ssh")[seed % 4],
                        activation=rng.choice(ACTIVATIONS)),
        head=Head(landmarks=rng.random() < 0.5),
        anchors=anchors)
