"""Where each layer of a design stands, in words that designs of other sizes share. No torch.

Names such as `backbone.stages.3.2` shift with depths and levels; a place ("the second block of the
third row of a MobileNetV2, its depthwise convolution") does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from detector.architecture.layers import SSH, Chain, Conv, Layer, Norm, Scale
from detector.architecture.plan import plan
from detector.config.detector import BACKBONE_ROWS, Detector

_ANY = (64, 64)  # places do not depend on the size of the image


@dataclass(frozen=True)
class Place:
    row: tuple
    """Part of the detector and kind of module; what must be equal for layers to correspond."""
    block: int
    """Among the blocks of a row: 0 is the one that changes the channels, and the stride. Negative
    before the first row: -1 is the stem's last layer."""
    role: int | str
    """In the block: -1 is its last layer, -2 the one before; or a name."""


@dataclass(frozen=True)
class Slot:
    """A layer with parameters, and where it stands."""

    name: str
    """Of its module in the built detector."""
    layer: Conv | Norm | Scale
    places: tuple[Place, ...]
    """Several where levels share it."""
    inputs: tuple[int, ...]
    """Channels of each map that was concatenated into its input."""
    outputs: tuple[int, ...]
    """Likewise of its output: a depthwise convolution keeps its input's."""


def slots(config: Detector) -> list[Slot]:
    """All layers with parameters, by the order of the built detector's."""
    found: dict[str, Slot] = {}
    for name, layer, row, block, inputs in _modules(config):
        for slot in _of_module(name, layer, row, block, inputs):
            known = found.get(slot.name)
            found[slot.name] = (
                slot if known is None else replace(known, places=known.places + slot.places)
            )
    return list(found.values())


_Module = tuple[str, Layer, tuple, int, tuple[int, ...]]


def _modules(config: Detector) -> Iterator[_Module]:
    """Name, layers, row, block and the parts of the input of every use of a module."""
    built, width = plan(config), config.neck.width
    yield from _backbone(config, built.backbone.stages)
    for name, layer, level in built.neck.uses():
        yield name, layer, ("neck", config.neck.kind, name.split(".")[1], level), 0, ()
    for name, layer, level in built.context.uses():
        yield name, layer, ("context", level), 0, ()
    views = (width // 2, width // 4, width // 4) if built.context.blocks else (width,)
    yield from _heads(config, built.heads, views)


def _backbone(config: Detector, stages: tuple[Chain, ...]) -> Iterator[_Module]:
    backbone = config.backbone
    kind = (
        backbone.kind.removesuffix("_s16"),
        *([backbone.block] if backbone.kind == "resnet" else []),
    )
    for index, stage in enumerate(stages):
        rows = [row for row, level in enumerate(BACKBONE_ROWS[backbone.kind]) if level == index + 1]
        blocks = [(row, block) for row in rows for block in range(backbone.depths[row])]
        first = len(stage.layers) - len(blocks)  # stem and pooling come before
        for place, layer in enumerate(stage.layers):
            name = f"backbone.stages.{index}.{place}"
            if place < first:
                yield name, layer, ("backbone", *kind, backbone.variant, "stem"), place - first, ()
                continue
            row, block = blocks[place - first]
            if backbone.kind == "yunet":  # its last unit changes the channels
                block = backbone.depths[row] - 1 - block
            yield name, layer, ("backbone", *kind, row), block, ()


def _heads(config: Detector, heads, views: tuple[int, ...]) -> Iterator[_Module]:
    head = config.head
    sizes = {predictor.name: predictor.size for predictor in heads.predictors}
    kind = "dense" if head.predictor in ("pointwise", "conv3") else head.predictor
    for name, layer, level in heads.uses():
        part = name.split(".")[1]
        if part == "towers":
            row = ("heads", part, head.block, level)
            for block, step in enumerate(layer.layers):
                yield f"{name}.{block}", step, row, block, () if block else views
        elif part == "scales":
            yield name, layer, ("heads", part, head.coding, level), 0, ()
        else:
            coding = head.coding if part in ("box_deltas", "landmark_deltas") else None
            yield (
                name,
                layer,
                ("heads", part, sizes[part], kind, coding, level),
                0,
                () if head.layers else views,
            )


def _of_module(
    name: str, layer: Layer, row: tuple, block: int, inputs: tuple[int, ...]
) -> Iterator[Slot]:
    leaves = [(leaf_name, leaf) for leaf_name, leaf, _ in layer.leaves(_ANY, name) if leaf.params]
    body = [leaf_name for leaf_name, _ in leaves if not leaf_name.startswith(f"{name}.shortcut")]
    for leaf_name, leaf in leaves:
        if isinstance(layer, SSH):
            role: int | str = leaf_name.removeprefix(f"{name}.")
        elif leaf_name in body:
            role = body.index(leaf_name) - len(body)
        else:
            role = "shortcut"
        if isinstance(leaf, Conv):
            parts = inputs if sum(inputs) == leaf.cin else (leaf.cin,)
            outputs = parts if leaf.groups > 1 else (leaf.cout,)
            inputs = outputs  # of the next one
        else:
            parts = outputs = (leaf.cout,) if isinstance(leaf, Norm) else ()
        yield Slot(leaf_name, leaf, (Place(row, block, role),), parts, outputs)
