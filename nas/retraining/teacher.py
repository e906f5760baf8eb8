"""The teacher of a retrain: loaded once beforehand, so that all errors come first.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.detector import Detector
from detector.config.recipe import Distillation
from nas.models.model_folder import load_model
from nas.retraining.options import RetrainOptions
from trials.names import describe
from trials.record import Cost
from trials.stored import Origin

if TYPE_CHECKING:
    from detector.training.teacher import TeacherFile


def choose_teacher(student: Detector, options: RetrainOptions) -> TeacherFile | None:
    """The teacher that the options name; None without one.

    Raises:
        UserError: there is no such file, it holds no trained detector, or one that predicts at none
            of the student's strides.
    """
    if options.teacher is None:
        return None
    from detector.losses.distillation import DistillationLoss
    from detector.training.teacher import TeacherFile
    from detector.weights.initialize import find_pretrained
    from detector.weights.pretrained import Teacher

    path = Path(options.teacher)
    config = load_model(path, options.teacher_preset, preset_flag="--teacher-preset").config
    DistillationLoss(Distillation(), student, config)
    _, weights = find_pretrained(config, str(path))
    cost = Cost.of(config)
    record = Teacher(
        weights=weights,
        describe=describe(config),
        params=cost.params,
        macs=cost.macs,
        preset=options.teacher_preset,
    )
    return TeacherFile(config=config, path=path.absolute(), record=record)


def teacher_lines(file: TeacherFile, student: Detector, origin: Origin) -> list[str]:
    """What to print of a teacher before a retrain: one line, and notes.

    Args:
        origin: of the retrain.
    """
    teacher = file.record
    seen = teacher.weights.trained_on
    lines = [
        f"  taught by {teacher.weights.title} ({teacher.describe}), {teacher.params:,} parameters, "
        f"{teacher.macs / 1e9:.4f} G MACs"
    ]
    if teacher.macs <= Cost.of(student).macs:
        lines.append("note: the teacher is no larger than what it teaches")
    if seen is not None and seen.get("with_holdout") and not origin.with_holdout:
        lines.append(
            "note: the teacher was trained on its hold-out, too, so the AP on the hold-out is no "
            "longer an unbiased estimate"
        )
    return lines
