"""The diagram of a network, parsed as XML."""

from xml.etree import ElementTree

import pytest

from analysis.page.network_diagram import LINE, WIDTH, network_svg
from detector.config.presets import load_preset
from nas.models.report_files import network_data

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("preset", "boxes"),
    [
        ("retinaface_mobile025", 5 + 3 + 3 + 3),  # stages, and neck, context, heads on 3 levels
        ("scrfd_0.5g", 5 + 3 + 3),
        ("yunet_n", 5 + 3 + 3),
        ("retinaface_resnet18_p2p6", 5 + 3 * 5),
    ],
)
def test_every_step_has_a_box_and_nothing_overlaps(preset, boxes):
    root = ElementTree.fromstring(network_svg(network_data(load_preset(preset)[0])))
    rects = [
        {k: float(r.get(k)) for k in ("x", "y", "width", "height")} for r in root.iter(f"{SVG}rect")
    ]
    assert len(rects) == boxes
    for i, a in enumerate(rects):
        for b in rects[:i]:
            apart = (
                a["x"] + a["width"] <= b["x"]
                or b["x"] + b["width"] <= a["x"]
                or a["y"] + a["height"] <= b["y"]
                or b["y"] + b["height"] <= a["y"]
            )
            assert apart
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    assert all(r["x"] + WIDTH <= width and r["y"] + r["height"] <= height for r in rects)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    shares = [float(t.split("· ")[1].split(" %")[0]) for t in texts if "% of MACs" in t]
    assert len(shares) == boxes and sum(shares) == pytest.approx(100, abs=0.05 * boxes)
    assert all(len(t) * 6.3 <= WIDTH for t in texts), max(texts, key=len)  # characters of 12 px
    inside = [
        t
        for t in root.iter(f"{SVG}text")
        if float(t.get("y")) > 30 + LINE and not t.text.startswith("stride ")
    ]
    assert all(
        any(
            r["x"] <= float(t.get("x")) <= r["x"] + WIDTH
            and r["y"] <= float(t.get("y")) <= r["y"] + r["height"]
            for r in rects
        )
        for t in inside
    )
