"""--inherit: a trial starts from the overlapping weights of the nearest trained design.

After parameter remapping (FNA, see `detector.weights.remap`) and the weight inheritance of
evolutionary searches (Real et al., "Large-Scale Evolution of Image Classifiers", ICML 2017). The
parent is chosen once, before the trial is stored, and its checkpoint of that moment is preserved.
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
"""In a trial's folder: the checkpoint that its parent had when it was chosen."""


def parent_of(
    record: TrialRecord, records: Sequence[TrialRecord], workdir: Callable[[TrialRecord], Path]
) -> TrialRecord | None:
    """The trained design nearest to a new one, ties by order; None if there is no candidate.

    Candidates have learned something by a rung, and have a checkpoint and a backbone of the same
    kind, as other kinds have hardly a layer in common. The distance is Euclidean in the design's
    features (`nas.samplers.features`), each scaled to [0, 1] over the candidates.

    Args:
        workdir: the folder of a trial.
    """
    kind = _backbone_kind(record)
    candidates = [
        r
        for r in records
        if r.number != record.number
        and r.last_evaluation
        and not r.why_nothing_learned()
        and _backbone_kind(r) == kind
        and (workdir(r) / LAST).exists()
    ]
    if not candidates:
        return None
    table = matrix([_design_features(r) for r in (record, *candidates)])
    distances = ((table[1:] - table[0]) ** 2).sum(axis=1)
    return candidates[int(distances.argmin())]


def save_parent_checkpoint(parent: Path, child: Path) -> None:
    """Save the checkpoint in folder `parent` as INIT in folder `child`.

    A hard link if the file system supports it: it takes no space until the parent's own checkpoint
    is replaced.

    Raises:
        UserError: the disk is full, or the folder is not writable.
    """
    try:
        child.mkdir(parents=True, exist_ok=True)
        with atomic_path(child / INIT) as temporary:
            try:
                os.link(parent / LAST, temporary)
            except OSError:  # no hard links on this file system
                shutil.copy(parent / LAST, temporary)
    except OSError as error:
        raise UserError(
            f"{child / INIT}: cannot be written ({error.strerror}); free some disk "
            "space, then resume with --resume"
        ) from error


def delete_parent_checkpoint(folder: Path) -> None:
    """Delete INIT from the folder of a trial that has ended."""
    (folder / INIT).unlink(missing_ok=True)


def _backbone_kind(record: TrialRecord) -> tuple[str, str]:
    backbone = record.detector.backbone
    return backbone.kind, backbone.block if "block" in backbone.spec.options else ""


def _design_features(record: TrialRecord) -> dict[str, float]:
    values = features(record.detector, record.recipe, record.cost)
    return {name: value for name, value in values.items() if not name.startswith("recipe.")}
