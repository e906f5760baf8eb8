"""--inherit: a trial starts from the overlapping weights of the nearest trained design.

After parameter remapping (FNA, see `detector.weights.remap`) and the weight inheritance of
evolutionary searches (Real et al., "Large-Scale Evolution of Image Classifiers", ICML 2017). The
parent is chosen once, before the trial is stored, and its checkpoint is kept as it was then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import atomic_path
from detector.weights.file_names import LAST
from nas.samplers.features import features, matrix
from trials.record import TrialRecord

INIT = "init.pt"
"""In a trial's folder: its parent's checkpoint when it was chosen."""


def parent_of(
    record: TrialRecord, records: Sequence[TrialRecord], workdir: Callable[[TrialRecord], Path]
) -> TrialRecord | None:
    """The trained design nearest to a new one; of equal ones the first; or none.

    Nearest by the design's features (`nas.samplers.features`), each scaled to [0, 1] over the
    candidates. Trained is what has a result at a rung and its checkpoint; it must have a backbone
    of the same kind, since others share hardly a layer.
    """
    kind = _kind(record)
    trained = [
        r
        for r in records
        if r.number != record.number
        and r.evaluated
        and _kind(r) == kind
        and (workdir(r) / LAST).exists()
    ]
    if not trained:
        return None
    table = matrix([_features(r) for r in (record, *trained)])
    distances = ((table[1:] - table[0]) ** 2).sum(axis=1)
    return trained[int(distances.argmin())]


def keep_parent(parent: Path, child: Path) -> None:
    """Put the checkpoint of the folder `parent` into `child` as INIT: a second name, where the file
    system has such, so that it takes no room until the parent trains on.

    Raises:
        UserError: the disk is full or the folder not writable.
    """
    try:
        child.mkdir(parents=True, exist_ok=True)
        with atomic_path(child / INIT) as temporary:
            try:
                os.link(parent / LAST, temporary)
            except OSError:  # no hard links here
                shutil.copy(parent / LAST, temporary)
    except OSError as error:
        raise UserError(
            f"{child / INIT}: cannot be written ({error.strerror}); free some disk "
            "space, then go on with --resume"
        ) from error


def drop_parent(folder: Path) -> None:
    """Forget the parent's checkpoint of a trial that has ended."""
    (folder / INIT).unlink(missing_ok=True)


def _kind(record: TrialRecord) -> tuple[str, str]:
    backbone = record.detector.backbone
    return backbone.kind, backbone.block if "block" in backbone.spec.options else ""


def _features(record: TrialRecord) -> dict[str, float]:
    numbers = features(record.detector, record.recipe, record.cost)
    return {name: value for name, value in numbers.items() if not name.startswith("recipe.")}
