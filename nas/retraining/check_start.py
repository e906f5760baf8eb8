"""What a retrain starts from, according to its flags. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

from detector.base.errors import UserError
from detector.config.detector import Detector
from detector.weights.pretrained import Start
from nas.retraining.options import RetrainOptions


def check_start(config: Detector, weights: str | None, options: RetrainOptions) -> Start | None:
    """What a training of `config` would take from `weights`; None means from scratch.

    Raises:
        UserError: nothing can be taken from them, or they belong to the other one of --weights and
            --init-from.
    """
    if weights is None:
        return None
    from detector.network.model import build_detector
    from detector.weights.initialize import copy_pretrained

    start, _ = copy_pretrained(build_detector(config), config, weights)
    if options.weights and start.part == "detector":
        raise UserError(
            f"--weights {weights}: contains a whole detector ({start.title}); use "
            "--init-from to fine-tune it"
        )
    if options.init_from and start.part == "backbone":
        raise UserError(
            f"--init-from {weights}: contains only a backbone ({start.title}); use --weights"
        )
    return start
