"""Context modules (SSH): larger receptive fields for each cell, before the heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.architecture.layers import SSH
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


class Context(nn.Module):
    """One SSH block per level, one for all levels, or none (maps are passed through)."""

    def __init__(self, plan: ContextPlan):
        super().__init__()
        self.plan = plan
        self.blocks = nn.ModuleList(map(SSHUnit, plan.blocks))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        if not self.blocks:
            return maps
        return [self.blocks[self.plan.block_index(i)](x) for i, x in enumerate(maps)]
