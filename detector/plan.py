"""What a configuration builds, layer by layer, as plain data. Imports no torch.

`model.py` builds its modules from a plan and `cost.py` counts the same plan, so the two cannot
disagree on a layer. Each part of a plan tells its `uses`: every application of a layer, with
the pyramid level of its input, under the name of the module in the built detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from detector import backbones
from detector.config import Detector
from detector.layers import SSH, Chain, Conv, Layer

Use = tuple[str, Layer, int]
"""Name of the module, its layers, pyramid level of the input (0 is the image)."""


@dataclass(frozen=True)
class BackbonePlan:
    stages: tuple[Chain, ...]
    """Stage i goes from level i to level i + 1."""

    def channels(self, level: int) -> int:
        return self.stages[level - 1].cout

    def uses(self) -> Iterator[Use]:
        for index, stage in enumerate(self.stages):
            yield f"backbone.stages.{index}", stage, index


@dataclass(frozen=True)
class NeckPlan:
    """A feature pyramid (FPN, Lin et al. 2017, as RetinaFace has it).

    Levels up to 5: a 1×1 lateral each; from the second-coarsest of them down, the coarser result
    is up-sampled (nearest) and added, and a 3×3 merge follows. Levels above 5: the first is a
    stride-2 3×3 convolution on the backbone's level 5, each further one on the one before; they
    take no part in the way down. A level that is only passed on the way to a coarser one (6 of
    [5, 7]) is built but not an output.
    """

    levels: tuple[int, ...]
    laterals: tuple[Conv, ...]
    """One for each level up to 5, finest first."""
    merges: tuple[Conv, ...]
    """One for each lateral but the coarsest, finest first; a single one where shared."""
    extras: tuple[Conv, ...]
    """To levels 6, 7 up to the coarsest."""

    def merge_index(self, lateral: int) -> int:
        """Index of the merge that follows lateral number `lateral`."""
        return min(lateral, len(self.merges) - 1)

    def uses(self) -> Iterator[Use]:
        for index, lateral in enumerate(self.laterals):
            yield f"neck.laterals.{index}", lateral, self.levels[index]
        for index in range(len(self.laterals) - 1):
            merge = self.merge_index(index)
            yield f"neck.merges.{merge}", self.merges[merge], self.levels[index]
        for index, extra in enumerate(self.extras):
            yield f"neck.extras.{index}", extra, 5 + index


@dataclass(frozen=True)
class ContextPlan:
    levels: tuple[int, ...]
    blocks: tuple[SSH, ...]
    """One for each level, a single one where shared, none where there is no context."""

    def block_index(self, level_index: int) -> int:
        """Index of the block that level number `level_index` goes through."""
        return min(level_index, len(self.blocks) - 1)

    def uses(self) -> Iterator[Use]:
        for index, level in enumerate(self.levels if self.blocks else ()):
            block = self.block_index(index)
            yield f"context.blocks.{block}", self.blocks[block], level


@dataclass(frozen=True)
class Predictor:
    """One kind of output: a 1×1 convolution for each level, `size` numbers for each anchor."""

    name: str
    size: int
    convs: tuple[Conv, ...]


@dataclass(frozen=True)
class HeadPlan:
    levels: tuple[int, ...]
    predictors: tuple[Predictor, ...]

    def uses(self) -> Iterator[Use]:
        for predictor in self.predictors:
            for index, (level, conv) in enumerate(zip(self.levels, predictor.convs)):
                yield f"heads.{predictor.name}.{index}", conv, level


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
    """The layers that `config` stands for."""
    levels, width = config.neck.levels, config.neck.width
    backbone = BackbonePlan(backbones.stages(config.backbone, top=min(5, levels[-1])))
    return DetectorPlan(
        backbone=backbone,
        neck=_neck(config, backbone),
        context=ContextPlan(levels, _context_blocks(config)),
        heads=HeadPlan(levels, _predictors(config, width)),
    )


def _neck(config: Detector, backbone: BackbonePlan) -> NeckPlan:
    neck, act = config.neck, config.neck.activation
    own = [level for level in neck.levels if level <= 5]
    merges = min(1, len(own) - 1) if neck.shared_merge else len(own) - 1
    extras = [Conv(backbone.channels(5) if level == 6 else neck.width, neck.width, 3, stride=2,
                   activation=act)
              for level in range(6, neck.levels[-1] + 1)]
    return NeckPlan(
        levels=neck.levels,
        laterals=tuple(Conv(backbone.channels(level), neck.width, activation=act)
                       for level in own),
        merges=(Conv(neck.width, neck.width, 3, activation=act),) * merges,
        extras=tuple(extras),
    )


def _context_blocks(config: Detector) -> tuple[SSH, ...]:
    count = {"none": 0, "ssh_shared": 1, "ssh": len(config.neck.levels)}[config.context.kind]
    return (SSH.of(config.neck.width, config.context.activation),) * count if count else ()


def _predictors(config: Detector, width: int) -> tuple[Predictor, ...]:
    sizes = {"class_logits": 2, "box_deltas": 4}
    if config.head.landmarks:
        sizes["landmark_deltas"] = 10
    anchors = [len(shapes) for shapes in config.anchor_shapes()]
    return tuple(
        Predictor(name, size, tuple(Conv(width, n * size, bias=True, norm=False) for n in anchors))
        for name, size in sizes.items())
