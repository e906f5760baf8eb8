"""What the user asks of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from detector.base.errors import UserError
from detector.config.recipe import Evaluation
from nas.models.model_folder import ModelChoice


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The flags of an evaluation."""

    model: ModelChoice = field(default_factory=ModelChoice)
    predictions: Path | None = None
    """Folder of prediction files, in place of a model."""
    data: str | None = None
    """Folder of the images, or synthetic; None for what the model was trained on."""
    ground_truth: Path | None = None
    """Folder of the official lists; None for that in the data folder."""
    listed_only: bool = False
    """Prediction files are scored on the images that the annotation lists."""
    coco: bool = False
    """Compute COCO's AP and AR as well."""
    output: Path | None = None
    """New folder for the model's prediction files."""
    settings: Evaluation = field(default_factory=Evaluation)
    """Test size and test-time augmentation."""
    device: str = "auto"
    tracking_uri: str = "none"

    def __post_init__(self):
        if self.predictions is not None:
            for flag, value in self.model.given():
                if value is not None:
                    raise UserError(f"{flag} and --predictions: give one of them")
        elif self.listed_only:
            raise UserError(
                "--listed-only: goes with --predictions only; add that, or leave it out"
            )
        if self.model.preset is not None and self.model.checkpoint is None:
            raise UserError("--preset: goes with --checkpoint only; add that, or leave it out")
        if self.predictions is not None and self.settings != Evaluation():
            raise UserError(
                "--test-size, --flip and --scales: go with a model; these are prediction files "
                "already"
            )
        if self.output is not None:
            if self.predictions is not None:
                raise UserError("--output: goes with a model; these are prediction files already")
            if self.output.exists() and any(self.output.iterdir()):
                raise UserError(f"--output {self.output}: is not empty; give a new folder")
