"""Disk that checkpoints and decoded images need, told before it is used; and when it is full."""

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
from trials.record import Cost

DRAWS = 100
BESIDE = 64 * 1024
"""Bytes of a checkpoint beside its numbers: names, design, recipe, history; the readable file."""


def checkpoint_bytes(params: int, recipe: Recipe) -> int:
    """Size of last.pt and last.json: weights and the optimiser's averages of them, in float32."""
    numbers = 3 if recipe.optimizer.kind == "adamw" else 2
    return 4 * numbers * params + BESIDE


def checkpoints_needed(space: SearchSpace, trials: int) -> int:
    """Bytes at once at most: paused trials keep a checkpoint each, also when the search has ended
    (a longer one may promote them). By the mean of random legal designs."""
    sizes = []
    for seed in range(DRAWS):
        detector, recipe = space.resolve(space.suggest(RandomTrial(f"disk/{seed}")))
        cost = Cost.of(detector)
        if space.constraints.broken(cost) is None:
            sizes.append(checkpoint_bytes(cost.params, recipe))
    detector, recipe = space.baseline
    baseline = checkpoint_bytes(Cost.of(detector).params, recipe)
    return baseline + round(trials * fmean(sizes or [baseline]))


def check_disk(folder: Path, space: SearchSpace, trials: int, inherit: bool = False) -> str:
    """One line about the checkpoints of a study in `folder`, which need not exist yet; those that
    it has already count as fitting.

    Args:
        inherit: each trial may keep its parent's checkpoint beside its own.

    Raises:
        UserError: they cannot fit.
    """
    files = [path.stat() for name in ("last.*", INIT) for path in folder.glob(f"trials/*/{name}")]
    there = sum({stat.st_ino: stat.st_size for stat in files}.values())  # one may have two names
    needed = max(0, checkpoints_needed(space, trials) * (2 if inherit else 1) - there)
    existing = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"{folder}: the checkpoints of {trials} trials need about "
            f"{size_text(needed)}, {size_text(free)} are free there; free some space, "
            "choose another --runs-dir or ask for fewer --trials"
        )
    return f"checkpoints: about {size_text(needed)} at most, {size_text(free)} free"


def prepare_images(parts: Sequence, folder: Path, *, shared: bool) -> list:
    """The images of each part as `detector.data.prepare.open_or_cache` gives them, with a progress
    bar, and a note on those that cannot be read."""
    from detector.data.prepare import open_or_cache
    from nas.terminal.progress_bars import ImagesBar

    with ImagesBar("decoding images") as bar:
        prepared = open_or_cache(
            parts, folder, shared=shared, report=print, progress=bar.update
        )
    for (images, _), ready in zip(parts, prepared):
        if ready.skipped:
            print(
                f"note: {len(ready.skipped)} of {len(images)} images of {images.name} cannot be "
                f"read and are left out, the first is {ready.skipped[0]}"
            )
    return prepared


@contextlib.contextmanager
def report_disk_full(folder: Path, resume: str) -> Iterator[None]:
    """Turn whatever error a full disk causes inside into one line.

    Args:
        folder: of the study.
        resume: the command that resumes the search.
    """
    try:
        yield
    except Exception as error:  # of sqlite, torch, numpy, Ray, each in its own words
        if not disk_full(error):
            raise
        free = size_text(shutil.disk_usage(folder).free)
        raise UserError(
            f"{folder}: the disk is full ({free} free); the study is intact: free some "
            f"space, then resume with: {resume}"
        ) from error
