"""DamoFD's residual blocks against plain functions, and what its rows may hold."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from detector.base.errors import ConfigError
from detector.config.detector import Backbone, Detector, Neck, arch_hash
from detector.network.model import build_detector

BACKBONE = Backbone(
    kind="damofd",
    stem=6,
    stem_depth=2,
    blocks=("inverted", "basic", "bottleneck", "inverted"),
    kernels=(7, 5, 3, 5),
    mid_widths=(4, 10, 8, 12),
    widths=(12, 14, 20, 16),
    depths=(4, 2, 2, 3),
)
DESIGN = Detector(backbone=BACKBONE, neck=Neck(levels=(3, 4, 5), width=8))


def reference(state, x):
    """The maps of all levels, step by step as DamoFD's code has them: of an inverted row, blocks
    are narrow and wide in turns, so that the last one is wide."""
    tensors = iter(state.items())

    def conv(x, stride=1, groups=1, biased=False):
        weight = next(tensors)[1]
        bias = next(tensors)[1] if biased else None
        x = F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)
        gamma, beta, mean, var, _ = (next(tensors)[1] for _ in range(5))
        return F.batch_norm(x, mean, var, gamma, beta)

    x = F.relu(conv(F.relu(conv(x, 2))))
    maps = [x]
    for row, (kind, mid, width, depth) in enumerate(
        zip(BACKBONE.blocks, BACKBONE.mid_widths, BACKBONE.widths, BACKBONE.depths)
    ):
        outs = {0: [mid, width] * 2, 3: [width, mid, width]}.get(row, [width] * depth)
        for block, out in enumerate(outs):
            stride = 2 if block == 0 else 1
            if kind == "basic":
                y = conv(F.relu(conv(x, stride)))
            elif kind == "bottleneck":
                y = conv(F.relu(conv(F.relu(conv(x)), stride)))
            else:
                y = conv(F.relu(conv(F.relu(conv(x)), stride, groups=out)))
            projects = stride == 2 or x.shape[1] != out
            x = F.relu(y + (conv(x, stride, biased=True) if projects else x))
            assert x.shape[1] == out
        maps.append(x)
    assert next(tensors, None) is None
    return maps


def test_the_backbone_computes_what_plain_functions_do():
    backbone = build_detector(DESIGN, seed=1).eval().backbone
    generator = torch.Generator().manual_seed(0)
    state = backbone.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.ndim == 1:
            value.add_(torch.randn(value.shape, generator=generator) * 0.2)
    x = torch.randn(2, 3, 70, 90, generator=generator)
    with torch.no_grad():
        found, wanted = list(backbone(x).values()), reference(state, x)
    assert [m.shape[1] for m in wanted] == [6, 12, 14, 20, 16]
    for one, other in zip(reversed(found), reversed(wanted)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_middle_width_of_a_single_inverted_block_is_no_other_design():
    def with_mid(width, depth):
        return arch_hash(
            replace(
                DESIGN,
                backbone=replace(
                    BACKBONE, mid_widths=(width, 10, 8, 12), depths=(depth, *BACKBONE.depths[1:])
                ),
            )
        )

    assert with_mid(4, 1) == with_mid(8, 1)
    assert with_mid(4, 2) != with_mid(8, 2)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kernels": (3, 5, 4, 7)}, r"^backbone.kernels: 4 must be odd, such as 3, 5 or 7$"),
        ({"kernels": (3, 5, 33, 7)}, r"^backbone.kernels: 33 must be at most 31$"),
        ({"kernels": (3, 5)}, r"^backbone.kernels: \[3, 5\] has 2 entries; damofd has 4 rows"),
        ({"blocks": None}, r"^backbone.blocks: \[\] has 0 entries; damofd has 4 rows"),
        ({"blocks": ("basic", "wide", "basic", "basic")}, r"^backbone.blocks: 'wide' is not one"),
        ({"mid_widths": (4, 0, 4, 4)}, r"^backbone.mid_widths: 0 must be greater than 0$"),
        ({"stem_depth": 0}, r"^backbone.stem_depth: 0 must be greater than 0$"),
        (
            {"kind": "resnet", "mid_widths": None, "blocks": None, "stem_depth": 1},
            r"^backbone.kernels: only for backbone.kind damofd, not resnet; leave it out$",
        ),
    ],
)
def test_rows_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(BACKBONE, **changes)
