"""--batch-size auto of a retrain: chosen once, kept when the retrain is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError, first_line
from detector.base.files import write_text
from detector.base.json_file import read_json
from detector.config.recipe import Recipe
from detector.weights.file_names import LAST
from nas.retraining import training
from nas.retraining.candidate import Candidate, with_batch_size
from nas.retraining.options import RetrainOptions
from trials.stored import Origin

if TYPE_CHECKING:
    from detector.training.teacher import TeacherFile

FILE, KEY = "batch_size.json", "chosen_batch_size"


def save_batch_size(workdir: Path, batch_size: int) -> None:
    """Save the choice, for when the retrain is resumed."""
    write_text(workdir / FILE, json.dumps({KEY: batch_size}) + "\n")


def _read_batch_size(path: Path) -> int:
    try:
        return int(read_json(path)[KEY])
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); give the --batch-size that the retrain "
            "chose when it started, or remove its folder"
        ) from error


def with_auto_batch_size(
    candidate: Candidate,
    recipe: Recipe,
    origin: Origin,
    options: RetrainOptions,
    teacher: TeacherFile | None = None,
) -> Recipe:
    """The recipe with the batch size of --batch-size auto: chosen for the device, or if the retrain
    is resumed, the one that it was started with."""
    if options.resume:
        stored = training.intact_metrics(candidate.folder)
        if stored is not None and stored.chosen_batch_size is not None:
            stored_recipe = with_batch_size(recipe, stored.chosen_batch_size)
            if training.finished_metrics(candidate, stored_recipe, origin):
                return stored_recipe
        path = candidate.workdir / FILE
        if (candidate.workdir / LAST).exists() and path.exists():
            return with_batch_size(recipe, _read_batch_size(path))
    from detector.training.batch_size import choose_batch_size, sizes_to_try, time_step
    from detector.training.fit import choose_device

    # Each of several workers trains on its share of a step's images, so shares are timed; without
    # CUDA graphs, which cannot contain the communication between workers.
    step = partial(time_step, graph=None if options.workers == 1 else False, teacher=teacher)
    shares = {
        -(-size // options.workers): size for size in sizes_to_try(recipe.batch_size, origin.images)
    }
    per_worker = f"; for each of {options.workers} workers" if options.workers > 1 else ""
    share = choose_batch_size(
        candidate.config,
        replace(recipe, batch_size=min(shares)),
        choose_device(options.device),
        shares,
        step,
        report=lambda line: print(line + per_worker),
    )
    return with_batch_size(recipe, shares[share])
