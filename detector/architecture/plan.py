"""The layers that a configuration stands for, as plain data. Imports no torch.

The network's modules are built from a plan and cost.py counts the same plan, so the two cannot
disagree. Each part of a plan lists its `uses`: every application of a layer, with the name of its
module in the built detector and the pyramid level of its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from itertools import pairwise

from detector.architecture.backbones.stages import stages
from detector.architecture.custom import (
    CustomNeck,
    Use,
    custom_block,
    custom_neck,
    custom_predictor,
)
from detector.architecture.layers import (
    SSH,
    Cascade,
    Chain,
    Conv,
    Fusion,
    Layer,
    Scale,
    separable,
    unit,
)
from detector.config.detector import Detector, Head


@dataclass(frozen=True)
class BackbonePlan:
    stages: Mapping[int, Chain]
    """By the level of the output, ascending; each goes on from the one before."""

    def channels(self, level: int) -> int:
        return self.stages[level].cout

    def uses(self) -> Iterator[Use]:
        source = 0
        for index, (level, stage) in enumerate(self.stages.items()):
            yield f"backbone.stages.{index}", stage, source
            source = level


@dataclass(frozen=True)
class FPNPlan:
    """A feature pyramid network (FPN, Lin et al. 2017), as in RetinaFace.

    Levels of the backbone, up to `top` (mostly 5): a 1×1 lateral convolution each; in the top-down
    path, the coarser result is up-sampled (nearest) and added, and a 3×3 merge convolution follows.
    Levels above: the first is a stride-2 3×3 convolution of the backbone's level `top`, each
    further one of the level before; they are not part of the top-down path. A skipped level below a
    coarser one (6 of [5, 7]) is built, but is no output.
    """

    levels: tuple[int, ...]
    top: int
    laterals: tuple[Conv, ...]
    """One per level up to `top`, finest first."""
    merges: tuple[Conv, ...]
    """One per lateral but the coarsest, finest first; a single one if shared."""
    extras: tuple[Conv, ...]
    """Of the levels above `top`, up to the coarsest."""

    def merge_index(self, lateral: int) -> int:
        """Index of the merge convolution of lateral number `lateral`."""
        return min(lateral, len(self.merges) - 1)

    def uses(self) -> Iterator[Use]:
        for index, lateral in enumerate(self.laterals):
            yield f"neck.laterals.{index}", lateral, self.levels[index]
        for index in range(len(self.laterals) - 1):
            merge = self.merge_index(index)
            yield f"neck.merges.{merge}", self.merges[merge], self.levels[index]
        for index, extra in enumerate(self.extras):
            yield f"neck.extras.{index}", extra, self.top + index


@dataclass(frozen=True)
class PAFPNPlan:
    """A path aggregation network (PANet, Liu et al. 2018), as in SCRFD; no norms, no activations.

    A 1×1 lateral convolution per level; in the top-down path, the coarser sum is up-sampled
    (nearest) and added, and a 3×3 convolution follows each sum; in the bottom-up path, a stride-2
    3×3 convolution of the finer level is added, and a 3×3 convolution follows each level but the
    finest.
    """

    levels: tuple[int, ...]
    laterals: tuple[Conv, ...]
    downs: tuple[Conv, ...]
    """After the top-down path, one per level."""
    strided: tuple[Conv, ...]
    """From each level but the coarsest to the next coarser one."""
    ups: tuple[Conv, ...]
    """After the bottom-up path, one per level but the finest."""

    def uses(self) -> Iterator[Use]:
        for index, level in enumerate(self.levels):
            yield f"neck.laterals.{index}", self.laterals[index], level
            yield f"neck.downs.{index}", self.downs[index], level
        for index, (fine, coarse) in enumerate(pairwise(self.levels)):
            # A single convolution crosses skipped levels.
            yield f"neck.strided.{index}", self.strided[index], fine
            yield f"neck.ups.{index}", self.ups[index], coarse


@dataclass(frozen=True)
class TFPNPlan:
    """YuNet's tiny FPN (TFPN): in the top-down path, a unit, whose output is up-sampled (nearest)
    and added to the finer level; without units the maps are passed through."""

    levels: tuple[int, ...]
    units: tuple[Chain, ...]
    """One per level, or none at all."""

    def uses(self) -> Iterator[Use]:
        for index, (level, layer) in enumerate(zip(self.levels, self.units)):
            yield f"neck.units.{index}", layer, level


@dataclass(frozen=True)
class SepFPNPlan:
    """EResFD's separated FPN; all of its maps have the channels of the backbone's.

    The top-down path consists of two parts, so that coarse levels do not reach the fine ones: the
    coarsest level of the lower part is fused with the backbone's map of the next level (up-sampled,
    nearest), not with the result there. Laterals are 1×1 convolutions; each level but the finest
    and the coarsest then passes a 3×3 convolution and is fused with the backbone's map once more.
    The coarsest level is passed through.
    """

    levels: tuple[int, ...]
    separation: int
    """Index of the level at which the upper part begins; at the last one there is a single path."""
    laterals: tuple[Conv, ...]
    """One per level but the coarsest, finest first."""
    sums: tuple[Fusion, ...]
    """Of the same levels: the lateral, and the coarser map."""
    merges: tuple[Conv, ...]
    """One per level but the finest and the coarsest."""
    returns: tuple[Fusion, ...]
    """Of the same levels: the merge, and the backbone's map."""

    def uses(self) -> Iterator[Use]:
        for index, lateral in enumerate(self.laterals):
            yield f"neck.laterals.{index}", lateral, self.levels[index]
            yield f"neck.sums.{index}", self.sums[index], self.levels[index]
        for index, merge in enumerate(self.merges):
            yield f"neck.merges.{index}", merge, self.levels[index + 1]
            yield f"neck.returns.{index}", self.returns[index], self.levels[index + 1]


NeckPlan = FPNPlan | PAFPNPlan | TFPNPlan | SepFPNPlan | CustomNeck


@dataclass(frozen=True)
class ContextPlan:
    levels: tuple[int, ...]
    blocks: tuple[SSH | Cascade, ...]
    """One per level, a single one if shared, or none without context."""

    def block_index(self, level_index: int) -> int:
        """Index of the block of level number `level_index`."""
        return min(level_index, len(self.blocks) - 1)

    def uses(self) -> Iterator[Use]:
        for index, level in enumerate(self.levels if self.blocks else ()):
            block = self.block_index(index)
            yield f"context.blocks.{block}", self.blocks[block], level


@dataclass(frozen=True)
class Predictor:
    """The layers of one output: one per level, or a shared one; `size` values per anchor."""

    name: str
    size: int
    layers: tuple[Layer, ...]
    backgrounds: int = 1
    """Class: values of the background at the finest level, of which the largest counts."""

    def computed(self, level_index: int) -> int:
        """Values per anchor that the layer of level number `level_index` computes."""
        return self.size + (self.backgrounds - 1 if level_index == 0 else 0)


@dataclass(frozen=True)
class HeadPlan:
    levels: tuple[int, ...]
    towers: tuple[Chain, ...]
    """Convolutions before the predictors: one chain per level, a single one if shared, or none."""
    predictors: tuple[Predictor, ...]
    scales: tuple[Scale, ...]
    """Scales of each level's box outputs if the head is shared."""
    coding: str
    """As head.coding; decides the initial boxes."""

    @staticmethod
    def index(level_index: int, parts: Sized) -> int:
        """Index of that of `parts` which level number `level_index` uses."""
        return min(level_index, len(parts) - 1)

    def uses(self) -> Iterator[Use]:
        for index, level in enumerate(self.levels if self.towers else ()):
            tower = self.index(index, self.towers)
            yield f"heads.towers.{tower}", self.towers[tower], level
        for predictor in self.predictors:
            for index, level in enumerate(self.levels):
                own = self.index(index, predictor.layers)
                yield f"heads.{predictor.name}.{own}", predictor.layers[own], level
        for index, (level, scale) in enumerate(zip(self.levels, self.scales)):
            yield f"heads.scales.{index}", scale, level


@dataclass(frozen=True)
class DetectorPlan:
    backbone: BackbonePlan
    neck: NeckPlan
    context: ContextPlan
    heads: HeadPlan

    def uses(self) -> Iterator[Use]:
        """In the order of the built detector's parameters."""
        for part in (self.backbone, self.neck, self.context, self.heads):
            yield from part.uses()


def plan(config: Detector) -> DetectorPlan:
    """The layers of a design."""
    levels = config.neck.levels
    backbone = BackbonePlan(stages(config.backbone, min(config.backbone.spec.top, levels[-1])))
    return DetectorPlan(
        backbone=backbone,
        neck=_neck(config, backbone),
        context=ContextPlan(levels, _context_blocks(config)),
        heads=_heads(config),
    )


def _neck(config: Detector, backbone: BackbonePlan) -> NeckPlan:
    neck, act = config.neck, config.neck.activation
    levels, width, top = neck.levels, neck.width, config.backbone.spec.top
    own = [level for level in levels if level <= top]
    custom = custom_neck(neck, {level: backbone.channels(level) for level in own})
    if custom is not None:
        return custom
    if neck.kind in ("tfpn", "none"):
        units = (unit(width, width, act),) * len(levels)
        return TFPNPlan(levels, units if neck.kind == "tfpn" else ())
    if neck.kind == "pafpn":
        plain = Conv(width, width, 3, bias=True, norm=False)
        return PAFPNPlan(
            levels=levels,
            laterals=tuple(
                Conv(backbone.channels(level), width, bias=True, norm=False) for level in levels
            ),
            downs=(plain,) * len(levels),
            strided=tuple(
                Conv(width, width, 3, stride=2 ** (coarse - fine), bias=True, norm=False)
                for fine, coarse in pairwise(levels)
            ),
            ups=(plain,) * (len(levels) - 1),
        )
    if neck.kind == "sepfpn":
        return SepFPNPlan(
            levels=levels,
            separation=levels.index(neck.split_level or levels[-1]),
            laterals=(Conv(width, width, activation=act),) * (len(levels) - 1),
            sums=(Fusion(width),) * (len(levels) - 1),
            merges=(Conv(width, width, 3, activation=act),) * (len(levels) - 2),
            returns=(Fusion(width),) * (len(levels) - 2),
        )
    merges = min(1, len(own) - 1) if neck.shared_merge else len(own) - 1
    extras = [
        Conv(
            backbone.channels(top) if level == top + 1 else neck.width,
            neck.width,
            3,
            stride=2,
            activation=act,
        )
        for level in range(top + 1, neck.levels[-1] + 1)
    ]
    return FPNPlan(
        levels=neck.levels,
        top=top,
        laterals=tuple(Conv(backbone.channels(level), neck.width, activation=act) for level in own),
        merges=(Conv(neck.width, neck.width, 3, activation=act),) * merges,
        extras=tuple(extras),
    )


def _context_blocks(config: Detector) -> tuple[SSH | Cascade, ...]:
    context, width = config.context, config.neck.width
    if context.kind == "none":
        return ()
    module = Cascade if context.kind.startswith("cascade") else SSH
    count = 1 if context.kind.endswith("_shared") else len(config.neck.levels)
    return (module.of(width, context.activation),) * count


def _heads(config: Detector) -> HeadPlan:
    head, levels, cin = config.head, config.neck.levels, config.neck.width
    copies = 1 if head.shared else len(levels)
    towers: tuple[Chain, ...] = ()
    if head.layers:
        towers = (
            Chain(tuple(_tower_layer(head, head.width if i else cin) for i in range(head.layers))),
        ) * copies
        cin = head.width
    sizes = {"class_logits": 2 if head.score == "softmax" else 1, "box_deltas": 4}
    if head.score == "objectness":
        sizes["objectness"] = 1
    if head.landmarks:
        sizes["landmark_deltas"] = 10
    anchors = [len(shapes) for shapes in config.anchor_shapes()][:copies]
    return HeadPlan(
        levels=levels,
        towers=towers,
        predictors=tuple(_outputs(head, name, size, cin, anchors) for name, size in sizes.items()),
        scales=(Scale(4 * anchors[0]),) * len(levels) if head.shared else (),
        coding=head.coding,
    )


def _outputs(head: Head, name: str, size: int, cin: int, anchors: list[int]) -> Predictor:
    backgrounds = head.backgrounds if name == "class_logits" else 1
    result = Predictor(name, size, (), backgrounds)
    couts = [count * result.computed(index) for index, count in enumerate(anchors)]
    return replace(result, layers=tuple(_predictor(head.predictor, cin, cout) for cout in couts))


def _tower_layer(head: Head, cin: int) -> Layer:
    custom = custom_block(head.block, cin, head.width)
    if custom is not None:
        return custom
    if head.block == "unit":
        return unit(cin, head.width)
    if head.block == "separable":
        return separable(cin, head.width, norm_groups=head.norm_groups)
    return Conv(cin, head.width, 3, activation="relu", norm_groups=head.norm_groups)


def _predictor(kind: str, cin: int, cout: int) -> Layer:
    """Its last convolution has a bias, and neither norm nor activation."""
    custom = custom_predictor(kind, cin, cout)
    if custom is not None:
        return custom
    if kind == "unit":
        return unit(cin, cout, activation=None, norm=False)
    if kind == "depthwise":
        return Chain(
            (
                Conv(cin, cin, 3, groups=cin, bias=True, activation="relu"),
                Conv(cin, cout, bias=True, norm=False),
            )
        )
    return Conv(cin, cout, 3 if kind == "conv3" else 1, bias=True, norm=False)
