"""`arch_hash`: equal exactly for designs that build the same network."""

import random
from dataclasses import replace

import pytest

from detector.architecture.plan import plan
from detector.base.errors import ConfigError
from detector.config.detector import Anchors, Context, Neck, arch_hash, canonical


def built(config):
    return (
        plan(config),
        config.anchor_shapes(),
        config.anchors.offset,
        config.pixels,
        config.head.coding,
        config.head.score,
    )


def mutated(config, rng):
    """`config` with one change, which may or may not affect what is built."""
    backbone, neck = config.backbone, config.neck
    row = rng.randrange(len(backbone.spec.levels))

    def at_row(values, step=1):
        return values[:row] + (values[row] + step,) + values[row + 1 :]

    return rng.choice(
        [
            lambda: replace(config, backbone=replace(backbone, widths=at_row(backbone.widths))),
            lambda: replace(config, backbone=replace(backbone, depths=at_row(backbone.depths))),
            lambda: replace(config, backbone=replace(backbone, block="bottleneck")),
            lambda: replace(config, backbone=replace(backbone, expansion=5)),
            lambda: replace(config, neck=replace(neck, shared_merge=not neck.shared_merge)),
            lambda: replace(config, neck=replace(neck, activation="relu6")),
            lambda: replace(config, context=Context(kind="ssh", activation="relu6")),
            lambda: replace(config, context=replace(config.context, kind="ssh_shared")),
            lambda: replace(config, context=replace(config.context, activation="relu6")),
            lambda: replace(config, anchors=Anchors(name="single")),
            lambda: replace(config, backbone=replace(backbone, variant="d")),
            lambda: replace(config, backbone=replace(backbone, last_expansion=7)),
            lambda: replace(config, backbone=replace(backbone, input_norm=True)),
            *(
                [
                    lambda: replace(config, backbone=replace(backbone, kernels=at_row(kernels, 2))),
                    lambda: replace(
                        config, backbone=replace(backbone, mid_widths=at_row(mid_widths))
                    ),
                    lambda: replace(config, backbone=replace(backbone, blocks=("inverted",) * 4)),
                    lambda: replace(config, backbone=replace(backbone, stem_depth=2)),
                ]
                if (kernels := backbone.kernels) and (mid_widths := backbone.mid_widths)
                else []
            ),
            lambda: replace(config, head=replace(config.head, layers=1)),
            lambda: replace(config, head=replace(config.head, width=8)),
            lambda: replace(config, head=replace(config.head, block="separable")),
            lambda: replace(config, head=replace(config.head, norm_groups=1)),
            lambda: replace(config, head=replace(config.head, predictor="conv3")),
            lambda: replace(config, head=replace(config.head, coding="point")),
        ]
    )()


@pytest.mark.parametrize("seed", range(25))
def test_same_hash_exactly_when_the_same_is_built(random_design, seed):
    rng = random.Random(seed)
    config = random_design(seed)
    for _ in range(40):
        try:
            other = mutated(config, rng)
        except ConfigError:  # widths that must be equal, groups that must divide
            continue
        assert (arch_hash(config) == arch_hash(other)) == (built(config) == built(other)), (
            config,
            other,
        )
        assert (arch_hash(config) == arch_hash(other)) == (canonical(config) == canonical(other))


def test_named_anchors_and_the_same_sizes_are_one_design(preset):
    config = preset("retinaface_mobile025")
    spelled = Anchors(sizes=((16, 32), (64, 128), (256, 512)))
    assert arch_hash(replace(config, anchors=spelled)) == arch_hash(config)


def test_a_single_merge_is_the_same_shared_or_not(preset):
    config = preset("retinaface_mobile025")
    pair = [
        replace(config, neck=Neck(levels=(3, 4), width=64, shared_merge=shared))
        for shared in (False, True)
    ]
    assert arch_hash(pair[0]) == arch_hash(pair[1])


@pytest.mark.parametrize(
    "name, known",
    [
        ("retinaface_mobile025", "a2172114c1d8"),
        ("retinaface_resnet18_p2p6", "a1ab98ae5b5c"),
        ("retinaface_resnet50", "a9c044ed91a5"),
    ],
)
def test_hashes_stay_the_same(preset, name, known):
    """Studies on disk store them."""
    assert arch_hash(preset(name)) == known
