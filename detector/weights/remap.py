"""Weights of one design mapped to another one: parameter remapping.

FNA (Fang et al., "Fast Neural Network Adaptation via Parameter Remapping and Architecture Search",
ICLR 2020): corresponding layers share their first channels; a kernel is copied into the centre of a
larger one, whose border becomes 0, and cropped to the centre for a smaller one; a block that the
source's row lacks is copied from the last block of that row. Only blocks that keep the number of
channels can replace another one: the first block of a row has other inputs, so if the source's row
has a single block, further blocks keep their initial values, as do channels beyond the source's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detector.architecture.layers import Conv, Norm, Scale
from detector.base.struct import Struct
from detector.config.detector import Detector
from detector.weights.layer_positions import LayerPosition, LayerSlot, layer_slots

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LayerOrigin(Struct):
    """Where the parameters of one layer come from."""

    layer: str
    """Name of its module."""
    source: str | None
    """Name of the source's module; None if the layer keeps its initial values."""
    copied: int
    """Number of parameters copied from there."""
    params: int
    """Number of all its parameters."""


def remap(
    source: Detector, state: Mapping[str, Tensor], target: Detector, initial: Mapping[str, Tensor]
) -> tuple[State, list[LayerOrigin]]:
    """The initial state of `target`, and the origin of each layer.

    A pure function: returns `state` if both designs are equal, `initial` if no layer corresponds.

    Args:
        state: of `build_detector(source)`, or of some of its layers.
        initial: of `build_detector(target)`: values of all that is not copied.
    """
    donors = _Donors(source, state)
    result, origins = {name: value.clone() for name, value in initial.items()}, []
    for slot in layer_slots(target):
        donor, copied = donors.find(slot), 0
        if donor is not None:
            copied = _copy(donor, state, slot, result)
        origins.append(
            LayerOrigin(
                layer=slot.name,
                source=donor.name if donor else None,
                copied=copied,
                params=slot.layer.params,
            )
        )
    return result, origins


def copied_shares(origins: Sequence[LayerOrigin]) -> dict[str, float]:
    """Share of the parameters that were copied, by part of the detector: backbone, neck, context,
    heads (if they have any), all."""
    copied: dict[str, int] = {}
    params: dict[str, int] = {}
    for origin in origins:
        for part in (origin.layer.split(".")[0], "all"):
            copied[part] = copied.get(part, 0) + origin.copied
            params[part] = params.get(part, 0) + origin.params
    total = params.pop("all")
    return {part: copied[part] / count for part, count in (params | {"all": total}).items()}


class _Donors:
    """The layers of a source that the state has values for, by position."""

    def __init__(self, source: Detector, state: Mapping[str, Tensor]):
        self._by_position: dict[LayerPosition, LayerSlot] = {}
        self._last_block: dict[tuple, int] = {}
        for slot in layer_slots(source):
            if not all(name in state for name in _tensors(slot)):
                continue
            for position in slot.positions:
                self._by_position[position] = slot
                last = self._last_block.get(position.row, 0)
                self._last_block[position.row] = max(position.block, last)

    def find(self, slot: LayerSlot) -> LayerSlot | None:
        """The layer that corresponds to `slot`, or replaces it."""
        for position in slot.positions:
            donor = self._by_position.get(position)
            last = self._last_block.get(position.row, 0)
            if donor is None and position.block > last > 0:
                donor = self._by_position.get(replace(position, block=last))
            if donor is not None and _same_kind(donor, slot):
                return donor
        return None


def _same_kind(one: LayerSlot, other: LayerSlot) -> bool:
    """A depthwise convolution has no weights for a full one."""
    if isinstance(one.layer, Conv) and isinstance(other.layer, Conv):
        return (one.layer.groups > 1) == (other.layer.groups > 1)
    return type(one.layer) is type(other.layer)


def _tensors(slot: LayerSlot) -> list[str]:
    """Names of its parameters."""
    layer, name = slot.layer, slot.name
    if isinstance(layer, Conv):
        return [
            f"{name}.conv.weight",
            *([f"{name}.conv.bias"] if layer.bias else []),
            *([f"{name}.norm.weight", f"{name}.norm.bias"] if layer.norm else []),
        ]
    if isinstance(layer, Norm):
        return [f"{name}.weight", f"{name}.bias"]
    return [f"{name}.factor" if isinstance(layer, Scale) else f"{name}.weight"]


def _copy(donor: LayerSlot, state: Mapping[str, Tensor], slot: LayerSlot, result: State) -> int:
    """Copies what overlaps into `result`; returns the number of parameters copied."""
    out, inner, copied = _pairs(donor.outputs, slot.outputs), None, 0
    if isinstance(slot.layer, Conv) and slot.layer.groups == 1:
        inner = _pairs(donor.inputs, slot.inputs)
    for name in _common_tensors(donor, slot, state, result):
        there, here = state[donor.name + name], result[slot.name + name]
        if here.ndim == 0:  # a scale factor, a counter
            here.copy_(there)
            count = 1
        elif here.ndim == 4:
            count = _copy_kernels(there, here, out, inner)
        else:
            here[out[1]] = there[out[0]].to(here)
            count = len(out[1])
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            copied += count
    return copied


def _common_tensors(
    donor: LayerSlot, slot: LayerSlot, state: Mapping[str, Tensor], result: Mapping[str, Tensor]
) -> list[str]:
    """Suffixes of the names of tensors that both have; without norms of different kinds."""
    names = [name.removeprefix(slot.name) for name in result if name.startswith(f"{slot.name}.")]
    if (
        isinstance(slot.layer, Conv)
        and isinstance(donor.layer, Conv)
        and (donor.layer.norm_groups is None) != (slot.layer.norm_groups is None)
    ):
        names = [name for name in names if not name.startswith(".norm.")]
    return [name for name in names if donor.name + name in state]


def _pairs(there: tuple[int, ...], here: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Indices of the corresponding channels, [K] there and [K] here: the first ones of each
    concatenated part (of all channels if the numbers of parts differ)."""
    if len(there) != len(here):
        there, here = (sum(there),), (sum(here),)
    indices: tuple[list[int], list[int]] = ([], [])
    starts = [0, 0]
    for sizes in zip(there, here):
        for side, start in enumerate(starts):
            indices[side].extend(range(start, start + min(sizes)))
        starts = [start + size for start, size in zip(starts, sizes)]
    return torch.tensor(indices[0]), torch.tensor(indices[1])


def _copy_kernels(
    there: Tensor, here: Tensor, out: tuple[Tensor, Tensor], inner: tuple[Tensor, Tensor] | None
) -> int:
    """Copies weights [O, I, K, K] of a convolution, or [O, 1, K, K] of a depthwise one (`inner` is
    None); returns their number."""
    kernels = there[out[0]] if inner is None else there[out[0]][:, inner[0]]
    size, own = here.shape[-1], kernels.shape[-1]
    common = min(size, own)
    cut, border = (own - common) // 2, (size - common) // 2
    padded = kernels.new_zeros(*kernels.shape[:2], size, size)
    padded[..., border : border + common, border : border + common] = kernels[
        ..., cut : cut + common, cut : cut + common
    ]
    if inner is None:
        here[out[1]] = padded.to(here)
    else:
        here[out[1][:, None], inner[1][None, :]] = padded.to(here)
    return kernels.shape[0] * kernels.shape[1] * common**2
