"""EResFD's network against plain functions, and what its parts may hold."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from detector.base.errors import ConfigError
from detector.config.detector import Anchors, Backbone, Context, Detector, Head, Neck, arch_hash
from detector.config.presets import load_preset
from detector.network.initialization import FACE_PRIOR
from detector.network.model import build_detector
from trials.names import describe

DESIGN = load_preset("eresfd")[0]
EPS = 1e-4


def with_random_values(design):
    model = build_detector(design, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.ndim == 1:
            value.add_(torch.randn(value.shape, generator=generator) * 0.4)
    return model


def reference(state, x, split):
    """Class and box outputs, [B, A, 2] and [B, A, 4], step by step as EResFD's code has them."""

    def conv(name, x, stride=1, relu=False):
        weight = state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, state.get(f"{name}.conv.bias"), stride, weight.shape[-1] // 2)
        if f"{name}.norm.weight" in state:
            norm = (state[f"{name}.norm.{key}"] for key in ("running_mean", "running_var"))
            x = F.batch_norm(x, *norm, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])
        return F.relu(x) if relu else x

    def block(name, x, stride):
        body = conv(f"{name}.body.1", conv(f"{name}.body.0", x, stride, relu=True))
        has_shortcut = f"{name}.shortcut.conv.weight" in state
        return body + (conv(f"{name}.shortcut", x, stride) if has_shortcut else x)

    def mean(name, one, other):
        weights = F.relu(state[f"{name}.weight"])
        weights = weights / (weights.sum() + EPS)
        return (weights[0] * one + weights[1] * other) / (weights.sum() + EPS)

    def up(coarse, fine):
        return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")

    x = (x - torch.tensor([104.0, 117.0, 123.0]).double().view(1, 3, 1, 1)).flip(1)
    x = conv("backbone.stages.0.0", x, 4)
    for index in (1, 2):
        x = conv(f"backbone.stages.0.{index}", x, relu=True)
    own = [block("backbone.stages.0.3", x, 1)]
    for stage, depth in enumerate((3, 3, 3, 2, 2), start=1):
        x = own[-1]
        for index in range(depth):
            x = block(f"backbone.stages.{stage}.{index}", x, 1 if index else 2)
        own.append(x)

    laterals = [conv(f"neck.laterals.{i}", own[i], relu=True) for i in range(5)] + [own[5]]
    high = [laterals[5]]
    for i in range(4, split - 1, -1):
        high.insert(0, mean(f"neck.sums.{i}", laterals[i], up(high[0], laterals[i])))
    low = [mean(f"neck.sums.{split - 1}", laterals[split - 1], up(own[split], own[split - 1]))]
    for i in range(split - 2, -1, -1):
        low.insert(0, mean(f"neck.sums.{i}", laterals[i], up(low[0], laterals[i])))
    maps = low + high
    for i in range(1, 5):
        merged = conv(f"neck.merges.{i - 1}", maps[i], relu=True)
        maps[i] = mean(f"neck.returns.{i - 1}", merged, own[i])

    classes, boxes = [], []
    for i, x in enumerate(maps):
        parts = [conv(f"context.blocks.{i}.conv3", x, relu=True)]
        for size in (5, 7):
            x = conv(f"context.blocks.{i}.conv{size}_1", parts[-1], relu=True)
            parts.append(conv(f"context.blocks.{i}.conv{size}_2", x, relu=True))
        x = torch.cat(parts, dim=1)
        score = conv(f"heads.class_logits.{i}", x)
        if i == 0:
            score = torch.stack([score[:, :3].max(dim=1).values, score[:, 3]], dim=1)
        classes.append(score.flatten(2).transpose(1, 2))
        boxes.append(conv(f"heads.box_deltas.{i}", x).flatten(2).transpose(1, 2))
    return torch.cat(classes, dim=1), torch.cat(boxes, dim=1)


@pytest.mark.parametrize("split, index", [(6, 4), (4, 2), (7, 5), (None, 5)])
def test_the_network_computes_what_plain_functions_do(split, index):
    """Without a split, the map below the coarsest takes the backbone's coarsest one, which the neck
    passes through: there, both paths are one."""
    design = replace(DESIGN, neck=replace(DESIGN.neck, split=split))
    model = with_random_values(design).double()
    images = torch.randint(0, 256, (2, 3, 200, 333), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model(images)
        classes, boxes = reference(model.state_dict(), images.double(), index)
    torch.testing.assert_close(found["class_logits"], classes, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["box_deltas"], boxes, rtol=1e-9, atol=1e-9)
    assert classes.abs().max() > 0.1 and boxes.std() > 0.1


def test_every_anchor_begins_as_background():
    """Also where the largest of three scores is that of the background."""
    model = build_detector(DESIGN)
    for index, layer in enumerate(model.heads.class_logits):
        bias = layer.conv.bias
        assert len(bias) == (4 if index == 0 else 2)
        face = torch.sigmoid(bias[-1] - bias[:-1].max())
        torch.testing.assert_close(face.item(), FACE_PRIOR)


def test_a_split_above_all_levels_is_no_other_design():
    def with_split(split, levels=(2, 3, 4, 5, 6, 7)):
        return replace(DESIGN, neck=replace(DESIGN.neck, split=split, levels=levels))

    assert arch_hash(with_split(None)) == arch_hash(with_split(7))
    assert arch_hash(with_split(6)) != arch_hash(with_split(5)) != arch_hash(with_split(7))
    # Without level 5, both begin at level 6; and with three levels there is one path.
    gap = (2, 3, 4, 6, 7)
    assert arch_hash(with_split(5, gap)) == arch_hash(with_split(6, gap))
    assert arch_hash(with_split(6, (2, 3, 4))) == arch_hash(with_split(None, (2, 3, 4)))
    assert "split" not in describe(with_split(7)) and " split5 " in describe(with_split(5))
    fpn = replace(DESIGN.neck, kind="fpn")
    plain = replace(fpn, split=None)
    assert arch_hash(replace(DESIGN, neck=fpn)) == arch_hash(replace(DESIGN, neck=plain))


def test_other_parts_go_with_its_backbone_and_it_with_others():
    fpn = replace(DESIGN, neck=Neck(levels=(3, 5, 7), width=24))
    with torch.no_grad():
        outputs = build_detector(fpn)(torch.zeros(1, 3, 130, 130, dtype=torch.uint8))
    assert outputs["box_deltas"].shape[1] == 17**2 + 5**2 + 2**2
    yunet = replace(
        load_preset("yunet_s")[0], neck=Neck(kind="sepfpn", levels=(3, 4, 5), width=64, split=5)
    )
    shared = replace(yunet, context=Context(kind="cascade_shared"))
    assert len(build_detector(shared).context.blocks) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"neck": {"levels": (2, 3), "width": 24}},
            r"^neck.width: 24 must equal the backbo",
        ),
        ({"neck": {"levels": (2, 3), "split": 8}}, r"^neck.split: 8 is not one of 2, 3, 4, 5"),
        (
            {"neck": {"levels": (1, 2)}},
            r"^neck.levels: \[1, 2\] must be ascending level",
        ),
        ({"head": {"backgrounds": 0}}, r"^head.backgrounds: 0 must be greater than 0$"),
        (
            {"head": {"score": "sigmoid"}},
            r"^head.backgrounds: 3 needs head.score softmax and",
        ),
        ({"head": {"shared": True}}, r"^head.backgrounds: 3 needs head.score softmax and"),
        (
            {"context": {"kind": "cascades"}},
            r"^context.kind: 'cascades' is not one of ssh, ",
        ),
    ],
)
def test_parts_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(
            DESIGN,
            **{part: replace(getattr(DESIGN, part), **new) for part, new in changes.items()},
        )


def test_a_neck_without_extra_levels_ends_with_the_backbone():
    backbone = Backbone(kind="yunet", stem=8, widths=(16,) * 6, depths=(1,) * 6)
    with pytest.raises(ConfigError, match=r"has levels above 5, which only neck.kind fpn builds"):
        Detector(
            backbone=backbone,
            neck=Neck(kind="sepfpn", levels=(3, 6), width=16),
            head=Head(),
            anchors=Anchors(name="single"),
        )
    with pytest.raises(ConfigError, match=r"has none of the backbone's levels; start at 5 or less"):
        Detector(backbone=backbone, neck=Neck(levels=(6, 7), width=16))
    assert Detector(backbone=replace(DESIGN.backbone), neck=Neck(levels=(6, 7), width=16))
