"""A tiny design, and made-up studies, searches and models that several tests need."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.detector import Backbone, Context, Detector, Head, Neck, arch_hash
from detector.config.presets import load_preset
from detector.config.recipe import DataChoice, Recipe
from trials.names import describe
from trials.objective import Objective
from trials.record import Cost, Status, TrialRecord
from trials.stored import Manifest, Metrics, Origin

if TYPE_CHECKING:
    from detector.training.teacher import TeacherFile

PROJECT = Path(__file__).resolve().parents[1]
YUNET_S_POINT = {
    "neck.levels": "P3-P5",
    "context.kind": "none",
    "activation": "relu",
    "head": "yunet",
    "yunet.layers": 0,
    "head.landmarks": True,
    "yunet.loss": "simota",
    "recipe.optimizer.lr": 0.03,
}
"""All of the preset yunet_s but its backbone, in the spaces whose baseline it is."""

TINY_DETECTOR = Detector(
    backbone=Backbone(
        kind="mobilenet_v1", stem=8, widths=(8, 16, 16, 32, 32), depths=(1, 1, 1, 1, 1)
    ),
    neck=Neck(levels=(3, 4, 5), width=16),
    context=Context(kind="none"),
)


def study_detector(width: int) -> Detector:
    """The design of a trial of the fixture `tiny_study`, even smaller than TINY_DETECTOR."""
    return Detector(
        backbone=Backbone(
            kind="mobilenet_v1", stem=4, widths=(4, 8, 8, width, width), depths=(1, 1, 1, 1, 1)
        ),
        neck=Neck(levels=(4, 5), width=width),
        head=Head(landmarks=False),
    )


def photographs(folder: Path, number: int, size: tuple[int, int], suffix: str = ".bmp") -> Path:
    """Images of one colour each, with a face, in RetinaFace's layout.

    Args:
        size: height, width in px; the faces are squares of half the smaller one.

    Returns:
        The folder of the images, in `folder`.
    """
    import cv2
    import numpy as np

    images = folder / "data" / "train" / "images" / "0--E"
    images.mkdir(parents=True)
    for index in range(number):
        cv2.imwrite(str(images / f"{index}{suffix}"), np.full((*size, 3), index + 1, np.uint8))
    side = min(size) // 2
    (folder / "data" / "train" / "label.txt").write_text(
        "".join(f"# 0--E/{index}{suffix}\n1 2 {side} {side}\n" for index in range(number))
    )
    return folder / "data"


def shallow(design: Detector, depth: int) -> Detector:
    """A design with at most `depth` blocks in each row of its backbone: exported faster."""
    depths = tuple(min(rows, depth) for rows in design.backbone.depths)
    return replace(design, backbone=replace(design.backbone, depths=depths))


def manifest(name: str = "s", **changes) -> Manifest:
    """The manifest of a study of the space "tiny"."""
    facts = {
        "space": "tiny",
        "created": 1.0,
        "data": DataChoice(),
        "data_name": "synthetic",
        "data_fingerprint": "0" * 12,
        "objective": Objective(),
    }
    return Manifest(name=name, **facts | changes)


def driver(folder: Path, space, *, study=None, sampler="random", trials=6, setup=None, **changes):
    """The driver of a search in `folder`/s, or of a given study, that nothing trains for yet."""
    from nas.engine.driver import Driver, TrialSetup
    from nas.samplers.proposer import Proposer
    from nas.study.storage import Study
    from trials.tracking.tracker import NullTracker

    return Driver(
        study or Study.create(folder, "s", manifest()),
        space,
        NullTracker(),
        Proposer(space, sampler, seed=0),
        setup or TrialSetup(train=Path("a"), holdout=Path("b")),
        trials=trials,
        **changes,
    )


def metrics(detector: Detector, title: str = "trial 1 of study tiny", **changes) -> Metrics:
    """metrics.json of a retrain of a design."""
    cost = Cost.of(detector)
    facts = {
        "design": arch_hash(detector),
        "describe": describe(detector),
        "origin": Origin(
            title=title,
            study="tiny",
            space="quick",
            data=DataChoice(),
            data_name="synthetic",
            data_fingerprint="0" * 12,
            images=20,
            objective=Objective(),
        ),
        "recipe": Recipe(),
        "params": cost.params,
        "macs": cost.macs,
        "folder": "",
        "finished": 1.0,
    }
    return Metrics(title=title, **facts | changes)


@functools.cache
def _mobile025() -> tuple[Detector, Recipe]:
    return load_preset("retinaface_mobile025")


def trial_record(number: int = 0, **changes) -> TrialRecord:
    """A completed trial of RetinaFace mobile0.25 without epochs."""
    detector, recipe = _mobile025()
    facts = {
        "status": Status.COMPLETED,
        "design": f"{number:012x}",
        "detector": detector,
        "recipe": recipe,
        "params": {},
        "cost": Cost(params=1, macs=1),
        "speed_score": 0.5,
    }
    return TrialRecord(number=number, **facts | changes)


def toy_search() -> list[str]:
    """The command line of a nas.search whose designs need not learn anything: a toy space trains
    for a few steps, after which all would be pruned."""
    code = """import runpy
from trials import record
record.MIN_AP = -1.0
runpy.run_module("nas.search", run_name="__main__", alter_sys=True)"""
    return [sys.executable, "-c", code]


def teacher_file(folder: Path, detector: Detector, seed: int = 1) -> TeacherFile:
    """A teacher with random weights, as teacher-SEED.pt in a folder; it sees faces everywhere."""
    import torch

    from detector.network.model import build_detector
    from detector.training.teacher import TeacherFile
    from detector.weights import checkpoint
    from detector.weights.initialize import find_pretrained
    from detector.weights.pretrained import Teacher

    path, cost = folder / f"teacher-{seed}.pt", Cost.of(detector)
    net, generator = build_detector(detector, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in net.heads.named_parameters():
            if "box_deltas" in name:  # boxes near their anchors, not inside out
                weight.normal_(0, 0.001, generator=generator).add_(weight.ndim == 1)
            elif "class_logits" in name or "objectness" in name:
                weight.normal_(0, 0.02, generator=generator)
    checkpoint.save(path, net, detector, Recipe(), {})
    _, start = find_pretrained(detector, str(path))
    record = Teacher(weights=start, describe=describe(detector), params=cost.params, macs=cost.macs)
    return TeacherFile(config=detector, path=path, record=record)


@functools.cache
def scenes_drawn_once() -> type:
    """`SyntheticImages` that keep what they have drawn, 8 ms an image; for tests of other things
    than drawing."""
    from detector.data.synthetic.scenes import SyntheticImages, draw

    drawn_once = functools.cache(draw)

    class DrawnOnce(SyntheticImages):
        def image(self, index: int):
            return drawn_once(self._split, index, self._seed).copy()

    return DrawnOnce


def equal_ap(value: float) -> dict[str, float]:
    """easy, medium and hard AP of the same value."""
    return dict.fromkeys(("easy", "medium", "hard"), value)


def flip_weight(path: Path) -> None:
    """Change one bit of the largest tensor in a file of torch.save."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        tensors = [part for part in archive.infolist() if "/data/" in part.filename]
    largest = max(tensors, key=lambda part: part.file_size)
    header = content[largest.header_offset : largest.header_offset + 30]
    lengths = [int.from_bytes(header[at : at + 2], "little") for at in (26, 28)]
    content[largest.header_offset + 30 + sum(lengths) + largest.file_size // 2] ^= 1
    path.write_bytes(content)


@contextlib.contextmanager
def registrations_undone() -> Iterator[None]:
    """Takes back what plugins register in the block."""
    from detector.architecture import custom
    from detector.base import plugins
    from detector.config import backbones, recipe
    from detector.config import detector as design
    from detector.losses import tables
    from detector.metrics.custom import METRICS
    from nas.samplers.proposer import SAMPLERS
    from trials import expression

    modules = set(sys.modules)
    kept: list[tuple[dict | list, dict | list]] = [
        (table, table.copy())
        for table in (
            *(custom._stages, custom._necks, custom._blocks, custom._predictors),
            *(design.NECKS, design.HEAD_BLOCKS, design.PREDICTORS, backbones.BACKBONES),
            *(recipe.ASSIGNERS, recipe.CLASS_LOSSES, recipe.BOX_LOSSES),
            *(tables.ASSIGNERS, tables.CLASS_LOSSES, tables.BOX_LOSSES),
            *(METRICS, SAMPLERS, expression.FUNCTIONS, expression._registered, plugins._loaded),
        )
    ]
    try:
        yield
    finally:
        for table, before in kept:
            table.clear()
            if isinstance(table, dict):
                table.update(before)
            else:
                table.extend(before)
        expression.read_expression.cache_clear()
        for name in set(sys.modules) - modules:
            if name.startswith(plugins.MODULE_PREFIX):
                del sys.modules[name]


# Its results are looked at in Triton's debug mode only, and it takes half of the time.
_NO_OVERFLOW_CHECK = """
from dataclasses import replace
from triton.runtime.interpreter import interpreter_builder as builder
builder.options = replace(builder.options, sanitize_overflow=False)
"""


def run_interpreted(script: str) -> str:
    """The output of Python code in a process in which Triton interprets its kernels, as it reads
    TRITON_INTERPRET when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", _NO_OVERFLOW_CHECK + script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "TRITON_INTERPRET": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parent),
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
