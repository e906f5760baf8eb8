"""Names describe what is built."""

from dataclasses import replace

import pytest

from detector.config.detector import Anchors, Context, Head
from detector.config.presets import load_preset
from trials.names import describe

BASE, _ = load_preset("retinaface_mobile025")


@pytest.mark.parametrize(
    "preset, name",
    [
        ("retinaface_mobile025", "mnv1 w0.25 d1-2-2-6-2 fpn64 P3-P5 ssh retinaface lm"),
        ("retinaface_resnet50", "resb w1 d3-4-6-3 fpn256 P3-P5 ssh retinaface lm"),
        ("retinaface_resnet18_p2p6", "res w1 d2-2-2-2 fpn64s P2-P6 ssh-shared 6 anchors lm"),
        (
            "scrfd_0.5g",
            "mnv1 w16-40-72-152-288 d1-2-3-2-6 stem16 pafpn16 P3-P5 head2x64 separable gn16 "
            "by-conv3 shared sigmoid distance retinaface",
        ),
        (
            "damofd_10g",
            "damofd w80-112-168-256 d10-10-8-1 stem56 bottleneck-bottleneck-bottleneck-basic "
            "k3-5-3-7 m40-32-16-8 pafpn56 P3-P5 head3x80 gn16 by-conv3 shared sigmoid distance "
            "retinaface",
        ),
        (
            "eresfd",
            "eres w1 d1-3-3-3-2-2 sepfpn16 split6 P2-P7 cascade bg3 single_tall",
        ),
        (
            "yunet_s",
            "yunet w16-32-64-64-64-64 d1-2-2-2-2-2 tfpn64 P3-P5 by-unit objectness point cell lm",
        ),
    ],
)
def test_presets(preset, name):
    detector, _ = load_preset(preset)
    assert describe(detector) == name


def test_differences_from_the_preset_are_named():
    backbone = replace(BASE.backbone, stem=16, widths=(16, 32, 96, 128, 128))
    design = replace(
        BASE,
        backbone=backbone,
        context=Context(kind="none"),
        head=Head(landmarks=False),
        anchors=Anchors(name="single"),
    )
    assert describe(design) == "mnv1 w16-32-96-128-128 d1-2-2-6-2 stem16 fpn64 P3-P5 single"


def test_rows_that_are_not_built_are_not_named():
    design = replace(BASE, neck=replace(BASE.neck, levels=(3, 4)))
    assert describe(design) == "mnv1 w0.25 d1-2-2-6 fpn64 P3-P4 ssh retinaface lm"
