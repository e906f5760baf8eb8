"""Necks (FPN, PAFPN, TFPN, SepFPN): feature pyramids with a map of equal width per level."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from detector.architecture.plan import (
    CustomNeck,
    FPNPlan,
    NeckPlan,
    PAFPNPlan,
    SepFPNPlan,
    TFPNPlan,
)
from detector.network.modules import build


def build_neck(plan: NeckPlan) -> nn.Module:
    """The module that maps the backbone's feature maps {level: [B, C, H, W]} to those of the neck's
    levels, finest first, [B, width, H / 2**level, W / 2**level], rounded up."""
    match plan:
        case FPNPlan():
            return FeaturePyramid(plan)
        case PAFPNPlan():
            return PathPyramid(plan)
        case TFPNPlan():
            return UnitPyramid(plan)
        case SepFPNPlan():
            return SeparatedPyramid(plan)
        case CustomNeck():
            return plan.module()
    raise TypeError(f"no neck for {plan}")


class FeaturePyramid(nn.Module):
    """FPN, as `FPNPlan` describes."""

    def __init__(self, plan: FPNPlan):
        super().__init__()
        self.plan = plan
        self.laterals = nn.ModuleList(map(build, plan.laterals))
        self.merges = nn.ModuleList(map(build, plan.merges))
        self.extras = nn.ModuleList(map(build, plan.extras))

    def forward(self, features: dict[int, Tensor]) -> list[Tensor]:
        maps = {
            level: lateral(features[level])
            for level, lateral in zip(self.plan.levels, self.laterals)
        }
        own = list(maps)
        for index in reversed(range(len(own) - 1)):
            fine, coarse = maps[own[index]], maps[own[index + 1]]
            merge = self.merges[self.plan.merge_index(index)]
            maps[own[index]] = merge(add_upsampled(fine, coarse))
        top = features.get(self.plan.top)
        for level, extra in enumerate(self.extras, start=self.plan.top + 1):
            maps[level] = top = extra(top)
        return [maps[level] for level in self.plan.levels]


class PathPyramid(nn.Module):
    """PAFPN, as `PAFPNPlan` describes."""

    def __init__(self, plan: PAFPNPlan):
        super().__init__()
        self.plan = plan
        self.laterals = nn.ModuleList(map(build, plan.laterals))
        self.downs = nn.ModuleList(map(build, plan.downs))
        self.strided = nn.ModuleList(map(build, plan.strided))
        self.ups = nn.ModuleList(map(build, plan.ups))

    def forward(self, features: dict[int, Tensor]) -> list[Tensor]:
        sums = [lateral(features[level]) for level, lateral in zip(self.plan.levels, self.laterals)]
        for index in reversed(range(len(sums) - 1)):
            sums[index] = add_upsampled(sums[index], sums[index + 1])
        maps = [down(x) for down, x in zip(self.downs, sums)]
        for index, strided in enumerate(self.strided):
            maps[index + 1] = maps[index + 1] + strided(maps[index])
        return maps[:1] + [up(x) for up, x in zip(self.ups, maps[1:])]


class UnitPyramid(nn.Module):
    """TFPN, as `TFPNPlan` describes."""

    def __init__(self, plan: TFPNPlan):
        super().__init__()
        self.plan = plan
        self.units = nn.ModuleList(map(build, plan.units))

    def forward(self, features: dict[int, Tensor]) -> list[Tensor]:
        maps = [features[level] for level in self.plan.levels]
        for index in reversed(range(len(self.units))):
            if index + 1 < len(maps):
                maps[index] = add_upsampled(maps[index], maps[index + 1])
            maps[index] = self.units[index](maps[index])
        return maps


class SeparatedPyramid(nn.Module):
    """SepFPN, as `SepFPNPlan` describes."""

    def __init__(self, plan: SepFPNPlan):
        super().__init__()
        self.plan = plan
        self.laterals = nn.ModuleList(map(build, plan.laterals))
        self.sums = nn.ModuleList(map(build, plan.sums))
        self.merges = nn.ModuleList(map(build, plan.merges))
        self.returns = nn.ModuleList(map(build, plan.returns))

    def forward(self, features: dict[int, Tensor]) -> list[Tensor]:
        own = [features[level] for level in self.plan.levels]
        maps = own.copy()
        for index in reversed(range(len(self.laterals))):
            coarse = own if index + 1 == self.plan.separation else maps
            lateral = self.laterals[index](own[index])
            maps[index] = self.sums[index](lateral, upsampled(coarse[index + 1], lateral))
        for index, (merge, fusion) in enumerate(zip(self.merges, self.returns), start=1):
            maps[index] = fusion(merge(maps[index]), own[index])
        return maps


def add_upsampled(fine: Tensor, coarse: Tensor) -> Tensor:
    """`fine` plus `coarse` up-sampled to its size."""
    return fine + upsampled(coarse, fine)


def upsampled(coarse: Tensor, fine: Tensor) -> Tensor:
    """`coarse` up-sampled (nearest) to the size of `fine`, which need not be exactly double."""
    return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
