"""The options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from detector.base.errors import UserError
from detector.config.recipe import Evaluation
from nas.models.model_folder import ModelChoice


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The flags of an evaluation, checked against each other."""

    model: ModelChoice = field(default_factory=ModelChoice)
    predictions: Path | None = None
    """Folder of prediction files to score, instead of a model."""
    data: str | None = None
    """Folder of the images, or synthetic; None means the data that the model was trained on."""
    ground_truth: Path | None = None
    """Folder of the official lists; None means the one in the data folder, if any."""
    listed_only: bool = False
    """Score prediction files only on the images that the annotation lists."""
    coco: bool = False
    """Also compute COCO's AP and AR."""
    output: Path | None = None
    """New folder for the model's prediction files."""
    settings: Evaluation = field(default_factory=Evaluation)
    """Test size and test-time augmentation."""
    device: str = "auto"
    tracking_uri: str = "none"

    def __post_init__(self):
        if self.predictions is not None:
            if self.model.named_by:
                raise UserError(
                    f"{self.model.named_by[0]} and --predictions: give only one of them"
                )
        elif self.listed_only:
            raise UserError("--listed-only: needs --predictions; add that, or leave it out")
        if self.predictions is not None and self.settings != Evaluation():
            raise UserError(
                "--test-size, --flip and --scales: need a model; leave them out with --predictions"
            )
        if self.output is not None:
            if self.predictions is not None:
                raise UserError("--output: needs a model; leave it out with --predictions")
            if self.output.exists() and any(self.output.iterdir()):
                raise UserError(f"--output {self.output}: is not empty; choose a new folder")
