"""The options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import exists, is_folder
from detector.config.presets import load_design
from detector.config.recipe import Evaluation
from detector.config.shipped import find_file
from nas.models.foreign_graphs import foreign_graph
from nas.models.model_folder import ModelChoice
from trials.stored import METRICS


def preset_settings(preset: str | None, graph: Path | None = None) -> tuple[Evaluation, str | None]:
    """The settings that a preset, or the kind of a foreign graph, was published with, and its name;
    those of all other models without one. The config.yaml of a retrained model has those of its
    training, which do not count.

    Args:
        graph: an exported model, of this program or of another one.

    Raises:
        UserError: there is no such preset, or the graph cannot be read or is of no known kind.
    """
    foreign = foreign_graph(graph)
    if foreign is not None:
        return foreign.evaluation, foreign.kind.name
    if preset is None:
        return Evaluation(), None
    path = find_file(preset, "preset")
    if (path.parent / METRICS).exists():
        return Evaluation(), None
    evaluation = load_design(path)[1].evaluation
    return replace(evaluation, every=Evaluation().every), path.stem


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
    """Test size, test-time augmentation and post-processing."""
    settings_of: str | None = None
    """The preset, or the kind of graph, whose settings these are, unless flags say otherwise; None
    means the defaults."""
    beside: str | None = None
    """Another model whose latency is measured in alternation: a file, or a preset. None means, for
    a foreign graph, the most recently retrained one or else the baseline; otherwise none."""
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
        if self.predictions is not None and self.beside is not None:
            raise UserError("--beside: needs a model; leave it out with --predictions")
        if self.output is not None:
            if self.predictions is not None:
                raise UserError("--output: needs a model; leave it out with --predictions")
            if exists(self.output) and not is_folder(self.output):
                raise UserError(f"--output {self.output}: is not a folder; choose a new one")
            if exists(self.output) and any(self.output.iterdir()):
                raise UserError(f"--output {self.output}: is not empty; choose a new folder")
