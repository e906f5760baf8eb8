"""Context modules (SSH, EResFD's cascade): larger receptive fields for each cell, before the
heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.architecture.layers import SSH, Cascade
from detector.architecture.plan import ContextPlan
from detector.network.modules import build


class SSHUnit(nn.Module):
    def __init__(self, layer: SSH):
        super().__init__()
        self.conv3 = build(layer.conv3)
        self.conv5_1 = build(layer.conv5_1)
        self.conv5_2 = build(layer.conv5_2)
        self.conv7_2 = build(layer.conv7_2)
        self.conv7_3 = build(layer.conv7_3)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5_1(x)
        branches = [self.conv3(x), self.conv5_2(shared), self.conv7_3(self.conv7_2(shared))]
        return F.relu(torch.cat(branches, dim=1), inplace=True)


class CascadeUnit(nn.Module):
    def __init__(self, layer: Cascade):
        super().__init__()
        self.conv3 = build(layer.conv3)
        self.conv5_1 = build(layer.conv5_1)
        self.conv5_2 = build(layer.conv5_2)
        self.conv7_1 = build(layer.conv7_1)
        self.conv7_2 = build(layer.conv7_2)

    def forward(self, x: Tensor) -> Tensor:
        small = self.conv3(x)
        medium = self.conv5_2(self.conv5_1(small))
        large = self.conv7_2(self.conv7_1(medium))
        return torch.cat([small, medium, large], dim=1)


def _unit(layer: SSH | Cascade) -> nn.Module:
    return SSHUnit(layer) if isinstance(layer, SSH) else CascadeUnit(layer)


class Context(nn.Module):
    """One block per level, one for all levels, or none (maps are passed through)."""

    def __init__(self, plan: ContextPlan):
        super().__init__()
        self.plan = plan
        self.blocks = nn.ModuleList(map(_unit, plan.blocks))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        if not self.blocks:
            return maps
        return [self.blocks[self.plan.block_index(i)](x) for i, x in enumerate(maps)]
