"""The feature pyramid: one map of equal width for each level, finer ones informed by coarser."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from detector.modules import build
from detector.plan import NeckPlan


class FeaturePyramid(nn.Module):
    """See `NeckPlan` for what is built."""

    def __init__(self, plan: NeckPlan):
        super().__init__()
        self.plan = plan
        self.laterals = nn.ModuleList(map(build, plan.laterals))
        self.merges = nn.ModuleList(map(build, plan.merges))
        self.extras = nn.ModuleList(map(build, plan.extras))

    def forward(self, features: dict[int, Tensor]) -> list[Tensor]:
        """The neck's levels, finest first, [B, width, H / 2**level, W / 2**level], rounded up.

        Args:
            features: the backbone's map [B, C, H, W] of each level it has.
        """
        maps = {level: lateral(features[level])
                for level, lateral in zip(self.plan.levels, self.laterals)}
        own = list(maps)
        for index in reversed(range(len(own) - 1)):
            fine, coarse = maps[own[index]], maps[own[index + 1]]
            # Functional, and to the finer map's size: odd sizes do not double exactly.
            up = F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
            maps[own[index]] = self.merges[self.plan.merge_index(index)](fine + up)
        top = features.get(5)
        for level, extra in enumerate(self.extras, start=6):
            maps[level] = top = extra(top)
        return [maps[level] for level in self.plan.levels]
