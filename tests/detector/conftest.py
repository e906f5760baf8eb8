"""Designs to test on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from detector.config.anchors import ANCHOR_SETS
from detector.config.backbones import BACKBONES, ROW_BLOCKS, published_backbone
from detector.config.detector import (
    ACTIVATIONS,
    CONTEXTS,
    NECKS_WITHOUT_WIDTH,
    Anchors,
    Backbone,
    Context,
    Detector,
    Head,
    Neck,
)

PRESETS = Path(__file__).resolve().parents[2] / "search_spaces" / "presets"


@pytest.fixture
def one_thread():
    """Torch with one thread: equal bit for bit from run to run, and fastest for tiny networks."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def preset():
    """Function: stem of a preset → its Detector."""

    def read(name: str) -> Detector:
        content = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
        return Detector.from_dict(content["detector"])

    return read


@pytest.fixture(scope="session")
def random_design():
    """Function: seed → a small Detector; seeds cycle through backbones, levels, contexts and necks,
    with random heads."""
    return _random_design


_LEVELS = (
    (3, 4, 5),
    (2,),
    (5,),
    (2, 3, 4),
    (3, 5),
    (2, 3, 4, 5, 6),
    (4, 7),
    (5, 6, 7),
    (3, 6),
    (4,),
    (2, 5),
    (2, 3, 4, 5, 6, 7),
    (3, 4),
)


def _row_options(kind: str, rows: int, seed: int) -> dict:
    """Values for each row of blocks, of the kinds that have them."""
    if "blocks" not in BACKBONES[kind].options:
        return {}
    rng = random.Random(seed)
    return {
        "blocks": tuple(rng.choice(ROW_BLOCKS) for _ in range(rows)),
        "kernels": tuple(rng.choice((1, 3, 5, 7)) for _ in range(rows)),
        "mid_widths": tuple(rng.randint(3, 24) for _ in range(rows)),
        "stem_depth": rng.randint(1, 3),
    }


def _random_design(seed: int) -> Detector:
    rng = random.Random(seed)
    kind = tuple(BACKBONES)[seed % len(BACKBONES)]
    rows = len(BACKBONES[kind].levels)
    neck = ("fpn", "fpn", "pafpn", "tfpn", "none", "sepfpn")[seed // 2 % 6]
    top = 7 if neck == "fpn" else BACKBONES[kind].top
    levels = tuple(level for level in _LEVELS[seed % len(_LEVELS)] if level <= top) or (4, 5)
    coarsest = max(BACKBONES[kind].levels)
    if coarsest < 5:
        levels = tuple(level for level in levels if level <= coarsest) or (3, 4)
    width = 4 * rng.randint(1, 6)
    bottleneck = rng.random() < 0.5
    if neck in NECKS_WITHOUT_WIDTH:  # all maps have the same width
        widths = (width,) * rows
        width *= published_backbone(kind, "bottleneck" if bottleneck else "basic").out_factor
    else:
        widths = tuple(rng.randint(3, 24) for _ in range(rows))
    backbone = Backbone(
        kind=kind,
        stem=rng.randint(3, 12),
        widths=widths,
        depths=tuple(rng.randint(1, 3) for _ in range(rows)),
        block="bottleneck" if bottleneck else "basic",
        variant=rng.choice(["plain", "d"]),
        expansion=rng.choice([1, 2, 3]),
        last_expansion=rng.choice([None, 1, 2]),
        input_norm=rng.random() < 0.3,
        activation=rng.choice(ACTIVATIONS),
        **_row_options(kind, rows, seed),
    )
    head = Head(
        landmarks=rng.random() < 0.5,
        layers=rng.choice([0, 0, 1, 2]),
        width=4 * rng.randint(1, 4),
        block=rng.choice(["conv", "separable", "unit"]),
        norm_groups=rng.choice([None, 2, 4]),
        predictor=rng.choice(["pointwise", "conv3", "depthwise", "unit"]),
        shared=rng.random() < 0.5,
        score=rng.choice(["softmax", "sigmoid", "objectness"]),
        coding=rng.choice(["anchor", "distance", "point"]),
    )
    if head.score == "softmax" and not head.shared:
        head = replace(head, backgrounds=rng.choice([1, 3]))
    a_cell = rng.randint(1, 2)
    offset = rng.choice([0.0, 0.5])
    anchors = rng.choice(
        [
            Anchors(name=rng.choice(list(ANCHOR_SETS)), offset=offset),
            Anchors(
                sizes=tuple(
                    (8.0 * 2**k,) * (a_cell if head.shared else rng.randint(1, 2)) for k in levels
                ),
                ratios=rng.choice([(1.0,), (0.5, 1.0, 1.3)]),
            ),
            Anchors(
                shapes=tuple(((5.0, 3.0 * 2**k), (2.0**k, 7.0)) for k in levels), offset=offset
            ),
        ]
    )
    return Detector(
        backbone=backbone,
        neck=Neck(
            levels=levels,
            width=width,
            kind=neck,
            shared_merge=rng.random() < 0.5,
            activation=rng.choice(ACTIVATIONS),
            split=rng.choice([None, 4, 5]),
        ),
        context=Context(kind=CONTEXTS[seed % len(CONTEXTS)], activation=rng.choice(ACTIVATIONS)),
        head=head,
        anchors=anchors,
    )
