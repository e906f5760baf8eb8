"""What the report shows of a network, written next to its weights. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from detector.architecture.cost import layer_costs
from detector.architecture.layers import Conv, Fusion, Layer, Scale, Size, level_size
from detector.architecture.plan import plan
from detector.base.files import write_bytes, write_text
from detector.config.detector import Detector
from trials.names import describe

NETWORK = "network.json"
EXAMPLES = "examples.png"


def network_data(config: Detector, size: Size = (640, 640)) -> dict:
    """The design as plain data.

    Args:
        size: (height, width) px of the input image, for costs and shapes.

    Returns:
        `describe`, one line; `input` [height, width]; `steps`, one for each use of a part in
        forward order (name, what, in and out as [height, width, channels], where the channels of
        `in` are those of the first convolution; params, macs; a part shared by several levels has
        its params at its first use); `layers` as (name, params, macs).
    """
    seen: set[str] = set()
    steps: list[dict] = []
    for name, layer, level in plan(config).uses():
        input_size = level_size(size, level)
        leaves = list(layer.leaves(input_size, name))
        out = layer.out(input_size)
        # a factor (Scale) has as many channels as the layer before it
        last = steps[-1]["out"][2] if isinstance(layer, Scale) else layer.cout
        first = next((leaf.cin for _, leaf, _ in leaves if isinstance(leaf, Conv)), last)
        steps.append(
            {
                "name": name,
                "what": _what(layer),
                "in": [*input_size, first],
                "out": [*out, last],
                "params": 0 if name in seen else sum(leaf.params for _, leaf, _ in leaves),
                "macs": sum(leaf.macs(at) for _, leaf, at in leaves),
            }
        )
        seen.add(name)
    return {
        "describe": describe(config),
        "input": list(size),
        "steps": steps,
        "layers": [list(row) for row in layer_costs(config, size)],
    }


def write_network(folder: Path, config: Detector) -> Path:
    """Write network.json to a model's folder; returns its path."""
    path = folder / NETWORK
    write_text(path, json.dumps(network_data(config), indent=1) + "\n")
    return path


def write_examples(folder: Path, images, predictions: dict, *, count: int = 6) -> Path:
    """Write examples.png: the model's faces in some of the built-in scenes; returns its path.

    Args:
        images: ImageSet of drawn scenes; photographs must not be copied.
        predictions: image's name → [n, 5] x, y, w, h (px), score.
        count: number of images.
    """
    import cv2
    import numpy as np

    side = 320
    tiles = []
    order = sorted(range(len(images)), key=lambda i: -len(images.labels[i].boxes))[:count]
    for index in order:
        image = images.image(index)
        scale = side / max(image.shape[:2])
        tile = np.full((side, side, 3), 255, np.uint8)
        small = cv2.resize(image, None, fx=scale, fy=scale)
        tile[: small.shape[0], : small.shape[1]] = small
        for x, y, w, h, score in predictions[images.labels[index].name]:
            if score >= 0.5:
                corners = [round(float(v) * scale) for v in (x, y, x + w, y + h)]
                # white under blue, visible on any background
                cv2.rectangle(tile, corners[:2], corners[2:], (255, 255, 255), 4)
                cv2.rectangle(tile, corners[:2], corners[2:], (178, 114, 0), 2)
        tiles.append(tile)
    rows = [np.hstack(tiles[i : i + 3]) for i in range(0, len(tiles) // 3 * 3, 3)] or tiles[:1]
    path = folder / EXAMPLES
    _, picture = cv2.imencode(path.suffix, np.vstack(rows))
    write_bytes(path, picture.tobytes())
    return path


def _what(layer: Layer) -> str:
    """What a layer is, such as "conv 3×3 /2" or "6 × residual block"."""
    if isinstance(layer, Conv):
        groups = " depthwise" if layer.groups == layer.cin > 1 else ""
        stride = f" /{layer.stride}" if layer.stride > 1 else ""
        return f"conv {layer.kernel}×{layer.kernel}{groups}{stride}"
    if isinstance(layer, Scale):
        return "learnt factor"
    if isinstance(layer, Fusion):
        return "sum with learnt weights"
    parts = getattr(layer, "layers", None)
    if parts is None:
        return type(layer).__name__
    names = [
        _what(part)
        if isinstance(part, Conv)
        else {"Chain": "block", "Residual": "residual block"}.get(
            type(part).__name__, type(part).__name__
        )
        for part in parts
    ]
    runs: list[list] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in runs)
