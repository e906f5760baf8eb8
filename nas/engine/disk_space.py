"""Disk space for checkpoints and decoded images: checked before a search; and full disks."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from detector.base.errors import UserError, disk_full, size_text
from detector.config.recipe import Recipe
from nas.engine.weight_inheritance import INIT
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from trials.folders import TRIALS
from trials.record import Cost

SAMPLED_DESIGNS = 100
"""Designs whose mean size estimates that of all."""
METADATA_BYTES = 64 * 1024
"""Of a checkpoint besides its tensors: names, design, recipe, history, and last.json."""


def checkpoint_bytes(params: int, recipe: Recipe) -> int:
    """Size of last.pt and last.json: weights and the optimiser's state, in float32."""
    floats_per_param = 3 if recipe.optimizer.kind == "adamw" else 2
    return 4 * floats_per_param * params + METADATA_BYTES


def checkpoints_needed(space: SearchSpace, trials: int) -> int:
    """Maximum bytes of the checkpoints of a search, estimated from random feasible designs.

    Each paused trial has a checkpoint, even after the search has ended, as a longer search may
    promote it.
    """
    sizes = []
    for seed in range(SAMPLED_DESIGNS):
        detector, recipe = space.resolve(space.suggest(RandomTrial(f"disk/{seed}")))
        cost = Cost.of(detector)
        if space.constraints.violated_cap(cost) is None:
            sizes.append(checkpoint_bytes(cost.params, recipe))
    detector, recipe = space.baseline
    baseline = checkpoint_bytes(Cost.of(detector).params, recipe)
    return baseline + round(trials * fmean(sizes or [baseline]))


def check_disk(folder: Path, space: SearchSpace, trials: int, inherit: bool = False) -> str:
    """One line about the disk space for the checkpoints of a study.

    Args:
        folder: of the study; need not exist. Space that its checkpoints already take is not needed
            again.
        inherit: whether each trial may have its parent's checkpoint besides its own.

    Raises:
        UserError: there is too little space.
    """
    files = [path.stat() for name in ("last.*", INIT) for path in folder.glob(f"{TRIALS}/*/{name}")]
    present = sum({stat.st_ino: stat.st_size for stat in files}.values())  # hard links count once
    needed = max(0, checkpoints_needed(space, trials) * (2 if inherit else 1) - present)
    existing_folder = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing_folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the checkpoints of {trials} trials need about "
            f"{size_text(needed)}, but only {size_text(free)} are free; free some space, "
            "choose another --runs-dir or ask for fewer --trials"
        )
    return f"checkpoints: about {size_text(needed)} at most, {size_text(free)} free"


def prepare_images(parts: Sequence, folder: Path, *, shared: bool) -> list:
    """The images of each part from `detector.data.prepare.open_or_cache`, with a progress bar and a
    note about unreadable ones."""
    from detector.data.prepare import open_or_cache
    from detector.data.types import why_unreadable
    from nas.terminal.progress_bars import ImagesBar

    with ImagesBar("decoding images") as bar:
        prepared = open_or_cache(parts, folder, shared=shared, report=print, progress=bar.update)
    for (images, _), opened in zip(parts, prepared):
        if opened.skipped:
            print(
                f"note: {len(opened.skipped)} of {len(images)} images of {images.name} cannot be "
                f"read and are left out, the first: {why_unreadable(images, opened.skipped[0])}"
            )
    return prepared


@contextlib.contextmanager
def report_disk_full(folder: Path, resume_command: str) -> Iterator[None]:
    """Turns errors that a full disk causes in the block into a UserError.

    Args:
        folder: of the study.
        resume_command: the command that resumes the search, for the message.
    """
    try:
        yield
    except Exception as error:  # SQLite, torch, numpy and Ray raise different types
        if not disk_full(error):
            raise
        free = size_text(shutil.disk_usage(folder).free)
        raise UserError(
            f"{folder}: the disk is full ({free} free); the study is intact: free some "
            f"space, then resume with: {resume_command}"
        ) from error
