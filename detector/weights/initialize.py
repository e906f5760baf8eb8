"""Initialization from pretrained weights, and a record of what came from where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from torch import nn

from detector.base.errors import UserError
from detector.base.files import write_text
from detector.config.detector import Detector
from detector.weights.downloads import imagenet_file
from detector.weights.files import adapt_input, read_weights
from detector.weights.known_files import Weights
from detector.weights.pretrained import IMAGENET, START_FILE, Start, Teacher
from detector.weights.remap import LayerOrigin, copied_shares, remap


def find_pretrained(config: Detector, source: str) -> tuple[Weights, Start]:
    """Pretrained weights for a training of `config`, and what they are.

    Args:
        source: imagenet, or a file as for `read_weights`; the design may have any width and depth.

    Raises:
        UserError: no such file or weights, or not a file of weights.
    """
    path = str(imagenet_file(config)) if source == IMAGENET else source
    weights = read_weights(path, config)
    training = weights.training or {}
    recipe, origin = training.get("recipe") or {}, training.get("origin")  # of a finished retrain
    teacher = training.get("teacher") or (origin or {}).get("teacher")
    before = training.get("start") or (origin or {}).get("start")
    if before is None and recipe.get("weights"):  # of a version that recorded no start
        before = Start(
            source=recipe["weights"],
            title="not recorded",
            part="detector",
            sha256=(origin or {}).get("weights_sha256") or "",
        ).to_dict()
    if origin is not None:
        images = {
            key: origin[key] for key in ("title", "data_name", "data_fingerprint", "images")
        } | {key: origin["data"].get(key) for key in ("path", "fraction", "holdout", "seed")}
        images["with_holdout"] = origin.get("with_holdout", False)
    return weights, Start(
        source=source,
        title=origin["title"] if origin else weights.title,
        part=weights.part,
        sha256=weights.sha256,
        from_here=bool(recipe),
        trained_on=images if origin else None,
        before=before and Start.from_dict(before, f"{path}: start"),
        teacher=teacher and Teacher.from_dict(teacher, f"{path}: teacher"),
    )


def copy_pretrained(
    model: nn.Module, config: Detector, source: str
) -> tuple[Start, list[LayerOrigin]]:
    """Copies the pretrained weights that fit into `model`, in place (`detector.weights.remap`).

    Args:
        model: `build_detector(config)`, on the CPU; other weights keep their values.
        source: as for `find_pretrained`.

    Raises:
        UserError: as `find_pretrained`, or no layer fits this design; the model is unchanged.
    """
    weights, start = find_pretrained(config, source)
    state, origins = remap(
        weights.config, adapt_input(weights, config.pixels), config, model.state_dict()
    )
    if not any(origin.copied for origin in origins):
        raise UserError(
            f"{source}: {weights.title}; none of its layers fits this design (backbone "
            f"{config.backbone.kind} here, {weights.config.backbone.kind} there); choose "
            "weights of the same kind of network, or train from scratch"
        )
    model.load_state_dict(state)
    return replace(start, copied=copied_shares(origins)), origins


def initialize_from(model: nn.Module, config: Detector, source: str, folder: Path) -> dict:
    """`copy_pretrained`, recorded in START_FILE in `folder`; returns the `Start` as plain data."""
    start, origins = copy_pretrained(model, config, source)
    folder.mkdir(parents=True, exist_ok=True)
    record = start.to_dict()
    write_text(
        folder / START_FILE,
        json.dumps(record | {"layers": [origin.to_dict() for origin in origins]}, indent=1) + "\n",
    )
    return record
