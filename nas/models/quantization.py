"""A model's graph in int8: calibrated on training images, checked on the hold-out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detector.base.errors import UserError
from detector.config.recipe import DataChoice, Evaluation
from nas.models.model_folder import Model
from trials.record import finds_nothing

if TYPE_CHECKING:
    from detector.data.open import Data
    from detector.data.types import ImageSet

SIZE = 640
"""Long side in px of the images that are calibrated and checked on."""
CALIBRATION_IMAGES, CHECK_IMAGES = 32, 200


@dataclass(frozen=True, kw_only=True)
class Int8Result:
    """What became of a graph in int8."""

    ap_before: Mapping[str, float]
    """Of the float graph on the hold-out, by level."""
    ap_after: Mapping[str, float]
    images: int
    """Of the hold-out."""
    ms_before: float
    """Median latency of a 640×640 image on one thread, in alternation."""
    ms_after: float
    float_parts: tuple[str, ...]


def open_images(model: Model, data: str | None) -> Data:
    """The images to calibrate and to check on.

    Args:
        data: a folder or synthetic; None means those that the model was trained on.

    Raises:
        UserError: there are no such images.
    """
    from detector.data.open import open_data, resolve_data

    if data is None and model.origin is not None:
        choice = model.origin.data
    else:
        choice = DataChoice(path=resolve_data(data)[0])
    print(f"data: {choice.path}", flush=True)
    opened = open_data(choice, parts=("train",))
    if not len(opened.holdout):
        raise UserError(f"--int8: {choice.path} has no hold-out to check on; name other data")
    return opened


def quantize_model(model: Model, path: Path, data: Data, max_loss: float) -> Int8Result:
    """Replace an exported float graph by one in int8.

    Args:
        data: from `open_images`.
        max_loss: of mean AP on the hold-out.

    Raises:
        UserError: int8 loses more than `max_loss`.
    """
    from detector.data.splits import Subset
    from detector.export.int8 import quantize_within
    from detector.export.runtime import load_exported, remove_graph, replace_graph
    from detector.inference.latency import latencies
    from detector.inference.predict import evaluate

    checked = _spread(len(data.holdout), CHECK_IMAGES)
    holdout = Subset(data.holdout, checked, data.holdout.name)

    def ap_of(file: Path) -> dict[str, float]:
        exported = load_exported(file)
        settings = exported.graph.settings if exported.graph.post == "nms" else Evaluation()
        return evaluate(exported, model.config, holdout, replace(settings, size=SIZE))

    images = list(_calibration(data.train, model))
    print(
        f"calibrating on {len(images)} training images, checking on {len(holdout)} of the hold-out"
        f" (long side at most {SIZE} px)",
        flush=True,
    )
    unchecked = path.with_name(f"{path.stem}.int8{path.suffix}")
    try:
        found = quantize_within(
            path,
            unchecked,
            images,
            ap_of,
            max_loss,
            lambda line: print(f"  {line}", flush=True),
        )
        if note := finds_nothing(found.ap_before):
            print(f"note: {note}, so that the comparison says nothing")
        times = latencies(
            {"float": load_exported(path, 1), "int8": load_exported(unchecked, 1)}, (SIZE, SIZE)
        )
        replace_graph(unchecked, path)
    finally:
        remove_graph(unchecked)
    return Int8Result(
        ap_before=found.ap_before,
        ap_after=found.ap_after,
        images=len(holdout),
        ms_before=times["float"].median_ms,
        ms_after=times["int8"].median_ms,
        float_parts=found.float_parts,
    )


def _spread(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` images, evenly spread, as they are sorted by event."""
    number = min(count, most)
    return [i * count // number for i in range(number)]


def _calibration(train: ImageSet, model: Model) -> Iterator[np.ndarray]:
    """At most CALIBRATION_IMAGES training images, as `_canvas`; without those that cannot be read,
    as in a training.

    Raises:
        UserError: none can be read.
    """
    from detector.data.types import UnreadableImage

    wrong: list[str] = []
    spread = _spread(len(train), CALIBRATION_IMAGES)
    for index in spread:
        try:
            image = train.image(index)
        except UnreadableImage as error:
            wrong.append(str(error))
        else:
            yield _canvas(image, model)
    if wrong:
        note = f"{len(wrong)} of {len(spread)} calibration images cannot be read; the first is"
        if len(wrong) == len(spread):
            raise UserError(f"{note} {wrong[0]}; give other images with --data")
        print(f"note: {note} {wrong[0]}; they are left out")


def _canvas(image: np.ndarray, model: Model) -> np.ndarray:
    """uint8 [1, 3, SIZE, SIZE]: an image as it is evaluated, padded to one size for all."""
    from detector.inference.tta import input_size, pad_images, resize_image

    width, height = input_size(image.shape[1::-1], Evaluation(size=SIZE), 1.0)
    resized = resize_image(image, (width, height), Evaluation().interpolation)
    padded = pad_images([resized], (SIZE, SIZE), model.config.pixels)
    return np.ascontiguousarray(padded.transpose(0, 3, 1, 2))
