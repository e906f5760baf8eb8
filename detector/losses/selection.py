"""The few anchors of a batch that a loss is about, without waiting for a GPU.

How many are chosen is known to the device alone. A CPU looks, and computes on those alone; a GPU
would have to be waited for, and its step could not be captured as a graph, so there all anchors are
computed, which costs microseconds, and the others count nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Selection:
    """Entries of tensors [B, A, …], in the order of `mask.nonzero()`, or all of them."""

    mask: Tensor
    """bool [B, A]."""
    indices: tuple[Tensor, Tensor] | None
    """(image, anchor), each int64 [R], of the chosen ones; none: all entries are kept."""

    def of(self, values: Tensor) -> Tensor:
        """[R, …]: the entries of [B, A, …]."""
        return values.flatten(0, 1) if self.indices is None else values[self.indices]

    def anchors(self, values: Tensor) -> Tensor:
        """[R, …]: for each entry that of its anchor, from [A, …]."""
        if self.indices is None:
            return values.expand(len(self.mask), *values.shape).flatten(0, 1)
        return values[self.indices[1]]

    def only(self, values: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
        """`values` [R, …] where chosen, else `otherwise`; gradients flow to the chosen alone."""
        if self.indices is not None:
            return values
        mask = self.mask.flatten()
        return torch.where(mask.view(-1, *[1] * (values.ndim - 1)), values, otherwise)

    def sum(self, terms: Tensor) -> Tensor:
        """Of the chosen entries' terms [R]."""
        return self.only(terms).sum()

    def spread(self, values: Tensor) -> Tensor:
        """[B, A] that has `values` [R] where chosen, else 0."""
        if self.indices is None:
            return self.only(values).view(self.mask.shape)
        return values.new_zeros(self.mask.shape).index_put_(self.indices, values)


def chosen(mask: Tensor, everything: bool | None = None) -> Selection:
    """The entries where `mask` [B, A] is true.

    Args:
        everything: whether to keep all entries; none: anywhere but on a CPU.
    """
    if everything if everything is not None else mask.device.type != "cpu":
        return Selection(mask, None)
    return Selection(mask, mask.nonzero(as_tuple=True))
