"""Short names of designs, for people; `arch_hash` is the identity."""

from __future__ import annotations

from detector.config.backbones import published_backbone, scaled
from detector.config.detector import Detector, Head, canonical


def describe(detector: Detector) -> str:
    """What gets built, in one line: "mnv1 w0.25 d1-2-2-6-2 fpn64 P3-P5 ssh retinaface lm".

    Of the head only what differs from RetinaFace's is named.

    w is the width multiplier where the published widths times it are the design's, else the
    channels of each row; d the blocks of each row; fpn the channels of the neck.
    """
    built, neck = canonical(detector)["backbone"], detector.neck
    shape = published_backbone(detector.backbone.kind, detector.backbone.block)
    widths, depths = built["widths"], built["depths"]
    width = widths[-1] / shape.widths[len(widths) - 1]
    is_scaled = [scaled(w * width) for w in shape.widths[: len(widths)]] == widths
    levels = neck.levels
    adjacent = levels == tuple(range(levels[0], levels[-1] + 1))
    parts = [
        shape.short + ("d" if built.get("variant") == "d" else ""),
        f"w{width:.4g}" if is_scaled else "w" + "-".join(map(str, widths)),
        "d" + "-".join(map(str, depths)),
        *([f"stem{built['stem']}"] if built["stem"] != scaled(shape.stem * width) else []),
        *([f"e{built['expansion']}"] if built.get("expansion", 6) != 6 else []),
        *(
            [f"{neck.kind}{neck.width}" + ("s" if neck.shared_merge and len(levels) > 1 else "")]
            if neck.kind != "none"
            else []
        ),
        f"P{levels[0]}-P{levels[-1]}"
        if adjacent and len(levels) > 1
        else "".join(f"P{level}" for level in levels),
        *({"ssh": ["ssh"], "ssh_shared": ["ssh-shared"], "none": []}[detector.context.kind]),
        *_head(detector.head),
        detector.anchors.name or f"{len(detector.anchor_shapes()[0])} anchors",
        *(["lm"] if detector.head.landmarks else []),
    ]
    return " ".join(parts)


def _head(head: Head) -> list[str]:
    """Such as head2x64, separable, gn16, by-conv3, shared, sigmoid, distance."""
    plain = Head()
    parts = []
    if head.layers:
        parts.append(f"head{head.layers}x{head.width}")
        if head.block != "conv":
            parts.append(head.block)
        if head.norm_groups and head.block != "unit":
            parts.append(f"gn{head.norm_groups}")
    if head.predictor != plain.predictor:
        parts.append(f"by-{head.predictor}")
    if head.shared:
        parts.append("shared")
    return parts + [
        value
        for value, default in ((head.score, plain.score), (head.coding, plain.coding))
        if value != default
    ]
