"""What a retrain starts from, as its flags say. Light to import."""

from __future__ import annotations

from detector.base.errors import UserError
from detector.config.detector import Detector
from detector.weights.pretrained import Start
from nas.retraining.options import RetrainOptions


def check_start(config: Detector, weights: str | None, options: RetrainOptions) -> Start | None:
    """What a training of `config` from `weights` would take over; none: it starts from scratch.

    Raises:
        UserError: nothing can be taken from there, or the other of --weights and --init-from is
            meant.
    """
    if weights is None:
        return None
    from detector.network.model import build_detector
    from detector.weights.initialize import copy_pretrained

    start, _ = copy_pretrained(build_detector(config), config, weights)
    if options.weights and start.part == "detector":
        raise UserError(
            f"--weights {weights}: holds a whole detector ({start.title}); give it as "
            "--init-from to fine-tune it"
        )
    if options.init_from and start.part == "backbone":
        raise UserError(
            f"--init-from {weights}: holds a backbone alone ({start.title}); give it as --weights"
        )
    return start
