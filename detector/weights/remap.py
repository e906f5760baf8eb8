"""Weights of one design for another one: parameter remapping.

FNA (Fang et al., "Fast Neural Network Adaptation via Parameter Remapping and Architecture Search",
ICLR 2020): layers that correspond share their first channels; a kernel is copied into the middle
of a larger one, whose border is 0, and cut down to the middle of a smaller one; a block that the
source's row lacks is copied from the row's last block. Only a block that keeps the channels stands
in for another one: the first block of a row has other inputs, so that after a row of one block
the further ones keep their initial values. Channels beyond the source's keep theirs, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detector.architecture.layers import Conv, Norm
from detector.base.struct import Struct
from detector.config.detector import Detector
from detector.weights.layer_positions import Slot, slots

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LayerOrigin(Struct):
    """Where the parameters of one layer come from."""

    layer: str
    """Name of its module."""
    source: str | None
    """Name of the source's module; none: initialised."""
    copied: int
    """Parameters taken from there."""
    params: int
    """All it has."""


def remap(
    source: Detector, state: Mapping[str, Tensor], target: Detector, fresh: Mapping[str, Tensor]
) -> tuple[State, list[LayerOrigin]]:
    """The state that `target` starts with, and where each layer's comes from.

    A pure function: where both designs are one it gives `state` itself, where no layer
    corresponds `fresh`.

    Args:
        state: of `build_detector(source)`; may be of some of its layers alone.
        fresh: of `build_detector(target)`: what is not copied keeps these values.
    """
    donors = _Donors(source, state)
    result, origins = {name: value.clone() for name, value in fresh.items()}, []
    for slot in slots(target):
        donor, copied = donors.of(slot), 0
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


def shares(origins: Sequence[LayerOrigin]) -> dict[str, float]:
    """Share of the parameters that were copied, by part of the detector: backbone, neck, context,
    heads (those that have any), all."""
    copied: dict[str, int] = {}
    params: dict[str, int] = {}
    for origin in origins:
        for part in (origin.layer.split(".")[0], "all"):
            copied[part] = copied.get(part, 0) + origin.copied
            params[part] = params.get(part, 0) + origin.params
    whole = params.pop("all")
    return {part: copied[part] / count for part, count in (params | {"all": whole}).items()}


class _Donors:
    """The layers of a source that has values, by their places."""

    def __init__(self, source: Detector, state: Mapping[str, Tensor]):
        self._by_place, self._last = {}, {}
        for slot in slots(source):
            if not all(name in state for name in _tensors(slot)):
                continue
            for place in slot.places:
                self._by_place[place] = slot
                self._last[place.row] = max(place.block, self._last.get(place.row, 0))

    def of(self, slot: Slot) -> Slot | None:
        """The layer that corresponds to `slot`, or stands in for it."""
        for place in slot.places:
            found = self._by_place.get(place)
            last = self._last.get(place.row, 0)
            if found is None and place.block > last > 0:
                found = self._by_place.get(replace(place, block=last))
            if found is not None and _same_kind(found, slot):
                return found
        return None


def _same_kind(one: Slot, other: Slot) -> bool:
    """A depthwise convolution has no weights for a dense one."""
    if isinstance(one.layer, Conv) and isinstance(other.layer, Conv):
        return (one.layer.groups > 1) == (other.layer.groups > 1)
    return type(one.layer) is type(other.layer)


def _tensors(slot: Slot) -> list[str]:
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
    return [f"{name}.factor"]


def _copy(donor: Slot, state: Mapping[str, Tensor], slot: Slot, result: State) -> int:
    """Copies what overlaps into `result`; returns how many parameters that are."""
    out, inner, copied = _pairs(donor.outputs, slot.outputs), None, 0
    if isinstance(slot.layer, Conv) and slot.layer.groups == 1:
        inner = _pairs(donor.inputs, slot.inputs)
    for name in _common(donor, slot, state, result):
        there, here = state[donor.name + name], result[slot.name + name]
        if here.ndim == 0:  # a factor, a counter
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


def _common(
    donor: Slot, slot: Slot, state: Mapping[str, Tensor], result: Mapping[str, Tensor]
) -> list[str]:
    """Ends of the names of the tensors that both have; of norms only where they are of one kind."""
    names = [name.removeprefix(slot.name) for name in result if name.startswith(f"{slot.name}.")]
    if isinstance(slot.layer, Conv) and (
        (donor.layer.norm_groups is None) != (slot.layer.norm_groups is None)
    ):
        names = [name for name in names if not name.startswith(".norm.")]
    return [name for name in names if donor.name + name in state]


def _pairs(there: tuple[int, ...], here: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Indices of the channels that correspond, [K] there and [K] here: the first ones of each
    concatenated part (of the whole where the parts are not as many)."""
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
    """Weights [O, I, K, K] of a convolution, [O, 1, K, K] of a depthwise one (`inner` is None)."""
    kernels = there[out[0]] if inner is None else there[out[0]][:, inner[0]]
    size, own = here.shape[-1], kernels.shape[-1]
    common = min(size, own)
    cut, border = (own - common) // 2, (size - common) // 2
    framed = kernels.new_zeros(*kernels.shape[:2], size, size)
    framed[..., border : border + common, border : border + common] = kernels[
        ..., cut : cut + common, cut : cut + common
    ]
    if inner is None:
        here[out[1]] = framed.to(here)
    else:
        here[out[1][:, None], inner[1][None, :]] = framed.to(here)
    return kernels.shape[0] * kernels.shape[1] * common**2
