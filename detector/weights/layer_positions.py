"""The position of each layer of a design, comparable between designs of other sizes. No torch.

Names such as `backbone.stages.3.2` shift with depths and levels; a position ("the depthwise
convolution of the second block in the third row of a MobileNetV2") does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from detector.architecture.layers import SSH, Cascade, Chain, Conv, Fusion, Layer, Norm, Scale
from detector.architecture.plan import plan
from detector.config.detector import Detector

_ANY_SIZE = (64, 64)  # positions do not depend on the size of the image


@dataclass(frozen=True)
class LayerPosition:
    row: tuple
    """Part of the detector and kind of module; layers correspond only if it is equal."""
    block: int
    """Index in the row: block 0 changes the channels and the stride. Negative before the first row:
    -1 is the last layer of the stem."""
    role: int | str
    """Index in the block: -1 is its last layer, -2 the one before; or a name."""


@dataclass(frozen=True)
class LayerSlot:
    """A layer with parameters, and its position."""

    name: str
    """Name of its module in the built detector."""
    layer: Conv | Norm | Scale | Fusion
    positions: tuple[LayerPosition, ...]
    """Several if pyramid levels share the layer."""
    inputs: tuple[int, ...]
    """Channels of each feature map that was concatenated into its input."""
    outputs: tuple[int, ...]
    """The same for its output: a depthwise convolution keeps those of its input."""


def layer_slots(config: Detector) -> list[LayerSlot]:
    """All layers with parameters, in the order of the built detector."""
    slots: dict[str, LayerSlot] = {}
    for name, layer, row, block, inputs in _modules(config):
        for slot in _module_slots(name, layer, row, block, inputs):
            shared = slots.get(slot.name)
            slots[slot.name] = (
                slot
                if shared is None
                else replace(shared, positions=shared.positions + slot.positions)
            )
    return list(slots.values())


_Module = tuple[str, Layer, tuple, int, tuple[int, ...]]
"""Name, layer, row, block, and the channels of the parts of its input."""


def _modules(config: Detector) -> Iterator[_Module]:
    """Every use of a module."""
    built, width = plan(config), config.neck.width
    yield from _backbone(config, built.backbone.stages)
    for name, layer, level in built.neck.uses():
        yield name, layer, ("neck", config.neck.kind, name.split(".")[1], level), 0, ()
    for name, layer, level in built.context.uses():
        yield name, layer, ("context", type(layer).__name__, level), 0, ()
    inputs = (width // 2, width // 4, width // 4) if built.context.blocks else (width,)
    yield from _heads(config, built.heads, inputs)


def _backbone(config: Detector, stages: Mapping[int, Chain]) -> Iterator[_Module]:
    backbone = config.backbone
    spec = backbone.spec
    kind = spec.layers, *([backbone.block] if "block" in spec.options else [])
    for index, (level, stage) in enumerate(stages.items()):
        rows = [row for row, own in enumerate(spec.levels) if own == level]
        blocks = [(row, block) for row in rows for block in range(backbone.depths[row])]
        first = len(stage.layers) - len(blocks)  # after stem and pooling
        for number, layer in enumerate(stage.layers):
            name = f"backbone.stages.{index}.{number}"
            if number < first:
                yield name, layer, ("backbone", *kind, backbone.variant, "stem"), number - first, ()
                continue
            row, block = blocks[number - first]
            if spec.widening_block == "last":
                block = backbone.depths[row] - 1 - block
            # Rows whose blocks are of another kind, or narrow and wide in turns, have no blocks in
            # common.
            own = (
                (backbone.blocks[row], layer.cout == backbone.widths[row])
                if backbone.blocks
                else ()
            )
            yield name, layer, ("backbone", *kind, row, *own), block, ()


def _heads(config: Detector, heads, inputs: tuple[int, ...]) -> Iterator[_Module]:
    head = config.head
    predictors = {predictor.name: predictor for predictor in heads.predictors}
    kind = "dense" if head.predictor in ("pointwise", "conv3") else head.predictor
    for name, layer, level in heads.uses():
        part = name.split(".")[1]
        if part == "towers":
            row = ("heads", part, head.block, level)
            for block, step in enumerate(layer.layers):
                yield f"{name}.{block}", step, row, block, () if block else inputs
        elif part == "scales":
            yield name, layer, ("heads", part, head.coding, level), 0, ()
        else:
            coding = head.coding if part in ("box_deltas", "landmark_deltas") else None
            size = predictors[part].computed(heads.levels.index(level))
            own = () if head.layers else inputs
            yield name, layer, ("heads", part, size, kind, coding, level), 0, own


def _module_slots(
    name: str, layer: Layer, row: tuple, block: int, inputs: tuple[int, ...]
) -> Iterator[LayerSlot]:
    leaves = [
        (leaf_name, leaf)
        for leaf_name, leaf, _ in layer.leaves(_ANY_SIZE, name)
        if isinstance(leaf, Conv | Norm | Scale | Fusion) and leaf.params
    ]
    body = [leaf_name for leaf_name, _ in leaves if not leaf_name.startswith(f"{name}.shortcut")]
    for leaf_name, leaf in leaves:
        if isinstance(layer, SSH | Cascade):
            role: int | str = leaf_name.removeprefix(f"{name}.")
        elif leaf_name in body:
            role = body.index(leaf_name) - len(body)
        else:
            role = "shortcut"
        if isinstance(leaf, Conv):
            parts = inputs if sum(inputs) == leaf.cin else (leaf.cin,)
            outputs = parts if leaf.groups > 1 else (leaf.cout,)
            inputs = outputs  # of the next layer
        else:
            parts = outputs = _values(leaf)
        yield LayerSlot(leaf_name, leaf, (LayerPosition(row, block, role),), parts, outputs)


def _values(leaf: Norm | Scale | Fusion) -> tuple[int, ...]:
    """Entries of a tensor of its parameters."""
    match leaf:
        case Norm():
            return (leaf.cout,)
        case Fusion():
            return (leaf.params,)
    return ()
