"""The teacher of a training: a frozen detector that predicts on the same crops (distillation)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detector.base.errors import UserError
from detector.boxes.anchors import Priors, priors
from detector.config.detector import Detector
from detector.config.recipe import Distillation
from detector.losses.distillation import DistillationLoss, SoftTargets
from detector.network.model import build_detector
from detector.weights.files import load_weights
from detector.weights.pretrained import Teacher


@dataclass(frozen=True, kw_only=True)
class TeacherFile:
    """Where a teacher is loaded from, on every worker."""

    config: Detector
    path: Path
    """Weights, as for `detector.weights.files.load_weights`."""
    record: Teacher
    """What checkpoints say of it; a training resumes with a file of the same SHA-256 alone."""


class TeacherNetwork:
    """A teacher on its device. It is no part of the student, of its checkpoints or of its EMA.

    Args:
        student: the design to train.
        memory_format: of the images.

    Raises:
        UserError: the weights cannot be read, are not those of the record, or both designs have no
            stride in common.
    """

    def __init__(
        self,
        file: TeacherFile,
        student: Detector,
        settings: Distillation,
        device: torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        self.loss = DistillationLoss(settings, student, file.config)
        self._config = file.config
        net = build_detector(file.config)
        found = load_weights(net, file.config, str(file.path)).sha256
        expected = file.record.weights.sha256
        if found != expected:
            raise UserError(
                f"{file.path}: the teacher's weights have changed since the training began "
                f"(sha256 {found[:12]}, not {expected[:12]}); restore the file"
            )
        # torch's stubs lack this overload
        net = net.to(device, memory_format=memory_format)  # type: ignore[call-overload]
        self._net = net.requires_grad_(False).eval()

    def priors(self, size: tuple[int, int]) -> Priors:
        """The teacher's, for images of `size` (height, width) px."""
        return priors(self._config, size, next(self._net.buffers()).device)

    @torch.no_grad()
    def targets(self, images: Tensor, student: Priors) -> SoftTargets:
        """What the student should predict.

        Args:
            images: [B, 3, H, W] raw BGR in 0-255; each network normalises them in its own way.
            student: the student's priors for that size.
        """
        height, width = images.shape[2:]
        return self.loss.targets(self._net(images), self.priors((height, width)), student)
