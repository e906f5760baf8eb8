"""Short, readable names of designs; their identity is `arch_hash`."""

from __future__ import annotations

from detector.config.backbones import published_backbone, scaled
from detector.config.detector import Detector, Head, Neck, canonical

LEGEND = (
    "names of designs: backbone, w width, d blocks, neck and its channels, levels, context, head "
    "(docs/reading-a-search.md)"
)
"""What `describe` returns, for the foot of a table."""


def describe(detector: Detector) -> str:
    """What gets built, in one line: "mnv1 w0.25 d1-2-2-6-2 fpn64 P3-P5 ssh retinaface lm".

    w is the width multiplier if the design's widths are the published ones times a factor, else
    the channels of each row of blocks; d is the number of blocks of each row, k its kernel size and
    m its middle width (damofd), and fpn the channels of the neck. Of the head, only differences
    from RetinaFace's are named.
    """
    built, neck = canonical(detector)["backbone"], detector.neck
    published = published_backbone(detector.backbone.kind, detector.backbone.block)
    widths, depths = built["widths"], built["depths"]
    width = widths[-1] / published.widths[len(widths) - 1]
    is_scaled = [scaled(w * width) for w in published.widths[: len(widths)]] == widths
    levels = neck.levels
    adjacent = levels == tuple(range(levels[0], levels[-1] + 1))
    parts = [
        published.short + ("d" if built.get("variant") == "d" else ""),
        f"w{width:.4g}" if is_scaled else "w" + "-".join(map(str, widths)),
        "d" + "-".join(map(str, depths)),
        *([f"stem{built['stem']}"] if built["stem"] != scaled(published.stem * width) else []),
        *([f"e{built['expansion']}"] if built.get("expansion", 6) != 6 else []),
        *_rows(built),
        *_neck(neck),
        f"P{levels[0]}-P{levels[-1]}"
        if adjacent and len(levels) > 1
        else "".join(f"P{level}" for level in levels),
        *([detector.context.kind.replace("_", "-")] if detector.context.kind != "none" else []),
        *_head(detector.head),
        detector.anchors.name or f"{len(detector.anchor_shapes()[0])} anchors",
        *(["lm"] if detector.head.landmarks else []),
    ]
    return " ".join(parts)


def _rows(built: dict) -> list[str]:
    """Kinds of blocks unless all are inverted, kernel sizes and middle widths, of each row."""
    if "blocks" not in built:
        return []
    kinds = built["blocks"] if len(set(built["blocks"])) > 1 else built["blocks"][:1]
    return [
        *(["-".join(kinds)] if kinds != ["inverted"] else []),
        "k" + "-".join(map(str, built["kernels"])),
        "m" + "-".join(map(str, built["mid_widths"])),
    ]


def _neck(neck: Neck) -> list[str]:
    """Its kind and channels, s if merges are shared, and the level at which it is split."""
    if neck.kind == "none":
        return []
    shared = "s" if neck.shared_merge and len(neck.levels) > 1 else ""
    split = [f"split{neck.split_level}"] if neck.split_level else []
    return [f"{neck.kind}{neck.width}{shared}", *split]


def _head(head: Head) -> list[str]:
    """Differences from RetinaFace's head, such as head2x64, separable, gn16, by-conv3, shared."""
    default = Head()
    parts = []
    if head.layers:
        parts.append(f"head{head.layers}x{head.width}")
        if head.block != "conv":
            parts.append(head.block)
        if head.norm_groups and head.block != "unit":
            parts.append(f"gn{head.norm_groups}")
    if head.predictor != default.predictor:
        parts.append(f"by-{head.predictor}")
    if head.shared:
        parts.append("shared")
    if head.backgrounds > 1:
        parts.append(f"bg{head.backgrounds}")
    return parts + [
        value
        for value, usual in ((head.score, default.score), (head.coding, default.coding))
        if value != usual
    ]
