"""Remapped weights against what they must compute, and against slices written down by hand."""

from dataclasses import replace
from itertools import count

import pytest
import torch

from detector.config.backbones import BACKBONES
from detector.config.detector import Anchors, Backbone, Context, Detector, Neck
from detector.network.model import build_detector
from detector.weights.layer_positions import layer_slots
from detector.weights.remap import copied_shares, remap

NAMES = [
    "retinaface_mobile025",
    "retinaface_resnet18_p2p6",
    "tiny_ssd300",
    "yunet_n",
    "scrfd_0.5g",
    "scrfd_2.5g",
    "scrfd_34g",
    "damofd_0.5g",
]


def trained(config, seed=1):
    """A network whose statistics, scales and biases are not those of a fresh one."""
    model = build_detector(config, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.ndim < 2 and value.is_floating_point():
            value.add_(torch.randn(value.shape, generator=generator) * 0.2)
        elif name.endswith("num_batches_tracked"):
            value.fill_(7)
    return model


def moved(model, source, target, seed=2, fill=None):
    """A network of `target` that starts from `model`; `fill` replaces what is not copied."""
    other = build_detector(target, seed).eval()
    fresh = other.state_dict()
    if fill is not None:
        fresh = {
            name: torch.full_like(value, fill) if value.is_floating_point() else value
            for name, value in fresh.items()
        }
    state, origins = remap(source, model.state_dict(), target, fresh)
    other.load_state_dict(state)
    return other, {origin.layer: origin for origin in origins}


@pytest.mark.parametrize("seed", range(12))
def test_the_same_design_is_copied_whole(random_design, seed):
    config = random_design(seed)
    model = trained(config)
    other, origins = moved(model, config, config)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert all(
        origin.copied == origin.params and origin.source == origin.layer
        for origin in origins.values()
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_belongs_to_a_slot(preset, name):
    config = preset(name)
    found = layer_slots(config)
    state = build_detector(config).state_dict()
    assert sum(slot.layer.params for slot in found) == sum(
        value.numel()
        for name, value in state.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    positions = [position for slot in found for position in slot.positions]
    assert len(set(positions)) == len(positions)


def doubled(config):
    backbone, head = config.backbone, config.head
    return replace(
        config,
        neck=replace(config.neck, width=2 * config.neck.width),
        head=replace(head, width=2 * head.width),
        backbone=replace(
            backbone,
            stem=2 * backbone.stem,
            widths=tuple(2 * width for width in backbone.widths),
            mid_widths=backbone.mid_widths and tuple(2 * width for width in backbone.mid_widths),
        ),
    )


def narrow_designs(random_design):
    """One design of each kind of backbone without group normalisation, whose groups depend on
    the number of channels, and with even stems."""
    for kind in BACKBONES:
        config = next(
            config
            for seed in count()
            if (config := random_design(seed)).backbone.kind == kind
            and config.head.norm_groups is None
            and config.context.kind == "ssh"
            and not config.backbone.stem % 2
        )
        yield pytest.param(config, id=kind)


def test_a_wider_design_with_zeros_beside_computes_the_same(random_design):
    """The channels of all concatenations, towers and predictors find their places again."""
    pixels = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    for param in narrow_designs(random_design):
        (config,) = param.values
        model = trained(config)
        wide, origins = moved(model, config, doubled(config), fill=0.0)
        with torch.no_grad():
            ours, theirs = wide(pixels), model(pixels)
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)
        assert sum(origin.copied for origin in origins.values()) == sum(
            value.numel() for value in model.parameters()
        )


def test_a_narrower_design_has_the_first_channels(preset):
    config = preset("retinaface_mobile025")
    narrow = replace(config, backbone=replace(config.backbone, widths=(16, 32, 48, 128, 256)))
    model = trained(config)
    other, origins = moved(model, config, narrow)
    before, after = model.state_dict(), other.state_dict()
    stage = "backbone.stages.2"  # level 3: 64 → 48 channels
    assert torch.equal(
        after[f"{stage}.1.1.conv.weight"], before[f"{stage}.1.1.conv.weight"][:48, :48]
    )
    assert torch.equal(after[f"{stage}.1.0.conv.weight"], before[f"{stage}.1.0.conv.weight"][:48])
    for end in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(after[f"{stage}.1.0.norm.{end}"], before[f"{stage}.1.0.norm.{end}"][:48])
    assert after[f"{stage}.1.0.norm.num_batches_tracked"] == 7
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(
        name.startswith((stage, "backbone.stages.3.0", "neck.laterals.0")) for name in changed
    )
    assert all(origin.copied == origin.params for origin in origins.values())


def test_ssh_views_keep_to_themselves(preset):
    config = preset("retinaface_mobile025")
    model = trained(config)
    other, _ = moved(model, config, replace(config, neck=replace(config.neck, width=32)))
    there, here = (m.state_dict()["heads.class_logits.0.conv.weight"] for m in (model, other))
    assert torch.equal(here[:, :16], there[:, :16])  # 3×3
    assert torch.equal(here[:, 16:24], there[:, 32:40])  # 5×5
    assert torch.equal(here[:, 24:], there[:, 48:56])  # 7×7


def test_further_blocks_copy_the_rows_last_one(preset):
    config = preset("retinaface_mobile025")  # depths 1, 2, 2, 6, 2
    deep = replace(config, backbone=replace(config.backbone, depths=(2, 3, 1, 6, 2)))
    other, origins = moved(trained(config), config, deep)
    assert origins["backbone.stages.1.2.1"].source == "backbone.stages.1.1.1"
    assert origins["backbone.stages.1.2.1"].copied == origins["backbone.stages.1.2.1"].params
    assert origins["backbone.stages.0.2.0"].source is None  # a row of one block has none to spare
    assert origins["backbone.stages.0.2.0"].copied == 0
    fresh = build_detector(deep, 2).state_dict()["backbone.stages.0.2.1.conv.weight"]
    assert torch.equal(other.state_dict()["backbone.stages.0.2.1.conv.weight"], fresh)
    assert origins["backbone.stages.3.5.0"].source == "backbone.stages.3.5.0"


def test_rows_of_one_level_do_not_shift():
    """MobileNetV2 has two rows at stride 16: a longer first one leaves the second where it was."""
    shape = {"kind": "mobilenet_v2", "stem": 8, "widths": (8, 8, 8, 8, 16, 16, 24)}
    one, two = (
        Detector(
            backbone=Backbone(depths=(1, 1, 1, first, 2, 1, 1), **shape),
            neck=Neck(levels=(3, 4), width=8),
        )
        for first in (1, 3)
    )
    _, origins = moved(trained(one), one, two)
    assert origins["backbone.stages.3.3.0"].source == "backbone.stages.3.1.0"  # expand
    assert origins["backbone.stages.3.4.body.2"].source == "backbone.stages.3.2.body.2"
    assert origins["backbone.stages.3.1.body.0"].source is None


def test_levels_and_sharing_are_distinguished(preset):
    config = preset("retinaface_mobile025")
    finer = replace(config, neck=Neck(levels=(2, 3, 4, 5), width=64, activation="leaky_relu"))
    _, origins = moved(trained(config), config, finer)
    assert origins["neck.laterals.0"].source is None
    assert origins["neck.laterals.1"].source == "neck.laterals.0"
    assert origins["heads.box_deltas.3"].source == "heads.box_deltas.2"
    shared = replace(config, context=Context(kind="ssh_shared", activation="leaky_relu"))
    _, origins = moved(trained(config), config, shared)
    assert origins["context.blocks.0.conv3"].source == "context.blocks.0.conv3"
    _, origins = moved(trained(shared), shared, config)
    assert {origins[f"context.blocks.{k}.conv3"].source for k in range(3)} == {
        "context.blocks.0.conv3"
    }


def test_kernels_grow_from_the_middle_and_shrink_to_it(preset):
    config = preset("retinaface_mobile025")
    larger = replace(config, head=replace(config.head, predictor="conv3"))
    model = trained(config)
    other, origins = moved(model, config, larger)
    name = "heads.box_deltas.1"
    there, here = (m.state_dict()[f"{name}.conv.weight"] for m in (model, other))
    assert torch.equal(here[..., 1, 1], there[..., 0, 0])
    assert here.abs().sum() == there.abs().sum()
    assert origins[name].copied == there.numel() + 8
    back, _ = moved(other, larger, config)
    assert torch.equal(back.state_dict()[f"{name}.conv.weight"], there)


def test_more_anchors_keep_the_first_ones(preset):
    config = preset("retinaface_mobile025")
    more = replace(config, anchors=Anchors(name="octave3"))
    model = trained(config)
    other, _ = moved(model, config, more)
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with torch.no_grad():
        ours, theirs = (
            m(pixels)["class_logits"][0, : 16 * n].view(16, n, 2)
            for m, n in ((other, 3), (model, 2))
        )
    torch.testing.assert_close(ours[:, :2], theirs)


def test_foreign_designs_share_what_they_can(preset):
    one, two = preset("retinaface_mobile025"), preset("yunet_n")
    model, fresh = trained(one), build_detector(two, 2).state_dict()
    state, origins = remap(one, model.state_dict(), two, fresh)
    assert all(torch.equal(state[name], fresh[name]) for name in fresh)
    assert copied_shares(origins) == {"backbone": 0.0, "neck": 0.0, "heads": 0.0, "all": 0.0}


def test_parts_that_the_state_lacks_stay_as_they_were(preset):
    config = preset("retinaface_mobile025")
    state = {
        name: value
        for name, value in trained(config).state_dict().items()
        if name.startswith("backbone.")
    }
    fresh = build_detector(config, 2).state_dict()
    result, origins = remap(config, state, config, fresh)
    assert all(torch.equal(result[name], state.get(name, fresh[name])) for name in fresh)
    assert copied_shares(origins) == {
        "backbone": 1.0,
        "neck": 0.0,
        "context": 0.0,
        "heads": 0.0,
        "all": pytest.approx(213_072 / 426_608),
    }


def test_further_inverted_blocks_start_from_the_last_of_their_own_width(preset):
    """Of DamoFD's inverted rows: narrow from narrow, wide from wide ones."""
    config = preset("damofd_0.5g")
    deep = replace(config, backbone=replace(config.backbone, depths=(2, 2, 6, 2)))
    _, origins = moved(trained(config), config, deep)
    stage = "backbone.stages.3"  # level 4: blocks of 40, 120, 40, 120 channels
    for block, source in enumerate((0, 1, 2, 3, 2, 3)):
        for part in ("body.0", "body.1", "body.2", "shortcut"):
            origin = origins[f"{stage}.{block}.{part}"]
            assert origin.source == f"{stage}.{source}.{part}"
            assert origin.copied == origin.params
