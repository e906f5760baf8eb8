"""The few anchors of a batch that a loss is about, gathered without waiting for a GPU.

Only the device knows how many are selected. On a CPU they are gathered, and computed alone. A GPU
would have to be waited for, and its step could not be captured as a CUDA graph: there everything
is computed for all anchors, which takes microseconds, and the others are masked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Selection:
    """Entries of tensors [B, A, …]: the R selected ones in the order of `mask.nonzero()`, or, where
    `indices` is None, all of them (R = B·A)."""

    mask: Tensor
    """bool [B, A]."""
    indices: tuple[Tensor, Tensor] | None
    """(image, anchor), each int64 [R]; None means all."""

    def gather(self, values: Tensor) -> Tensor:
        """[R, …] from [B, A, …]."""
        return values.flatten(0, 1) if self.indices is None else values[self.indices]

    def gather_anchors(self, values: Tensor) -> Tensor:
        """[R, …] from [A, …], values of the anchors."""
        if self.indices is None:
            return values.expand(len(self.mask), *values.shape).flatten(0, 1)
        return values[self.indices[1]]

    def masked(self, values: Tensor, fill: Tensor | float = 0.0) -> Tensor:
        """`values` [R, …] where selected, else `fill`; only the selected get gradients."""
        if self.indices is not None:
            return values
        mask = self.mask.flatten()
        return torch.where(mask.view(-1, *[1] * (values.ndim - 1)), values, fill)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the selected of `values` [R]."""
        return self.masked(values).sum()

    def scatter(self, values: Tensor) -> Tensor:
        """[B, A] with `values` [R] where selected, else 0."""
        if self.indices is None:
            return self.masked(values).view(self.mask.shape)
        return values.new_zeros(self.mask.shape).index_put_(self.indices, values)


def select(mask: Tensor, all_entries: bool | None = None) -> Selection:
    """The entries where `mask` [B, A] is true.

    Args:
        all_entries: whether to compute all entries; None means everywhere but on a CPU.
    """
    if all_entries if all_entries is not None else mask.device.type != "cpu":
        return Selection(mask, None)
    image, anchor = mask.nonzero(as_tuple=True)
    return Selection(mask, (image, anchor))
