"""Where training starts: pretrained weights put into a new network, and what came from where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from torch import nn

from detector.base.cli import write_text
from detector.base.errors import UserError
from detector.config.detector import Detector
from detector.weights.files import Weights, for_pixels, imagenet_file, read_weights
from detector.weights.pretrained import IMAGENET, START_FILE, Start
from detector.weights.remap import LayerOrigin, remap, shares


def find_start(config: Detector, source: str) -> tuple[Weights, Start]:
    """The weights that a training of `config` may start from, and what they are.

    Args:
        source: imagenet, or a file as for `read_weights`; of any width and depth.

    Raises:
        UserError: no such file, no such weights, or not weights.
    """
    path = str(imagenet_file(config)) if source == IMAGENET else source
    found = read_weights(path, config)
    known = found.training or {}
    recipe, origin = known.get("recipe") or {}, known.get("origin")  # of a finished retrain
    before = known.get("start") or (origin or {}).get("start")
    if before is None and recipe.get("weights"):  # written before starts were recorded
        before = Start(
            source=recipe["weights"],
            title="not recorded",
            part="detector",
            sha256=(origin or {}).get("weights_sha256") or "",
        ).to_dict()
    if origin is not None:
        images = {
            key: origin[key] for key in ("title", "data_name", "data_fingerprint", "images")
        } | {"path": origin["data"]["path"]}
    return found, Start(
        source=source,
        title=origin["title"] if origin else found.title,
        part=found.part,
        sha256=found.sha256,
        from_here=bool(recipe),
        trained_on=images if origin else None,
        before=before and Start.from_dict(before, f"{path}: start"),
    )


def start_from(model: nn.Module, config: Detector, source: str) -> tuple[Start, list[LayerOrigin]]:
    """Copies what fits of pretrained weights into `model`, in place (`detector.weights.remap`).

    Args:
        model: `build_detector(config)`, on the CPU; what is not copied keeps its values.
        source: as for `find_start`.

    Raises:
        UserError: as `find_start`, or nothing of it fits this design. The model is then as it was.
    """
    found, start = find_start(config, source)
    state, origins = remap(
        found.config, for_pixels(found, config.pixels), config, model.state_dict()
    )
    if not any(origin.copied for origin in origins):
        raise UserError(
            f"{source}: {found.title}; none of its layers fits this design (backbone "
            f"{config.backbone.kind} here, {found.config.backbone.kind} there); choose "
            "weights of the same kind of network, or train from scratch"
        )
    model.load_state_dict(state)
    return replace(start, copied=shares(origins)), origins


def begin(model: nn.Module, config: Detector, source: str, folder: Path) -> dict:
    """`start_from`, with START_FILE written to `folder`; returns the `Start` as plain data."""
    start, origins = start_from(model, config, source)
    folder.mkdir(parents=True, exist_ok=True)
    told = start.to_dict()
    write_text(
        folder / START_FILE,
        json.dumps(told | {"layers": [origin.to_dict() for origin in origins]}, indent=1) + "\n",
    )
    return told
