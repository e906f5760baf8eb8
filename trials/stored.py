"""What a study keeps as JSON beside its records: what it is, and what a retrained model is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from detector.base.errors import ConfigError, UserError, first_line
from detector.base.files import write_text
from detector.base.struct import Struct
from detector.config.recipe import DataChoice, Recipe
from detector.weights.pretrained import Start
from trials.objective import Objective

FORMAT = 1
"""Version of the files below that this code writes; it reads all up to it."""


@dataclass(frozen=True, kw_only=True)
class Stored(Struct):
    """A JSON file that says which version of its format it has (none: the first)."""

    format: int = FORMAT

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """The content of a file.

        Args:
            remedy: what the user can do about a damaged file, for the message.

        Raises:
            FileNotFoundError: there is none.
            UserError: it cannot be read, or a newer version wrote it.
        """
        try:
            content = json.loads(path.read_text())
            if isinstance(content, dict) and content.get("format", FORMAT) > FORMAT:
                raise UserError(
                    f"{path}: has format {content['format']}, written by a newer version of this "
                    f"program, which reads up to {FORMAT}; update the program"
                )
            return cls.from_dict(content)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, ConfigError) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from error

    def write(self, path: Path) -> None:
        """Whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class Manifest(Stored):
    """study.json: what a study is. Written once, when the study is made."""

    name: str
    space: str
    """Name of the search space."""
    created: float
    """Unix seconds."""
    trials: int = 0
    """Designs to draw, unless a resumed search asks for more."""
    seed: int = 0
    sampler: str = "random"
    scheduler: str = "halving"
    """halving or none."""
    space_hash: str = ""
    """12 hex digits over what the space says."""
    budget: dict | None = None
    """MACs that all designs have, where the space asks for that (`Budget` as plain data)."""
    space_text: str = ""
    data: DataChoice
    data_name: str
    data_fingerprint: str
    """Of the images, faces and split."""
    images: dict = field(default_factory=dict)
    """train, holdout and val → how many."""
    objective: Objective
    versions: dict = field(default_factory=dict)
    """Package → version, and the commit."""
    inherit: bool = False
    """Trials start from the weights of a neighbour."""
    enqueue: str | None = None
    """Designs to try first: the file's content as JSON text."""
    from_study: str | None = None
    """Another study to take designs and results from."""


@dataclass(frozen=True, kw_only=True)
class Origin(Struct):
    """Where a retrained model comes from: the evidence for the rules. Kept inside its weights."""

    title: str
    """Such as "trial 17 of study retina-001"."""
    study: str | None = None
    space: str | None = None
    data: DataChoice
    data_name: str
    data_fingerprint: str
    images: int
    """Trained on."""
    with_holdout: bool = False
    """Trained on the hold-out, too: then there is no AP on it."""
    weights_sha256: str | None = None
    """Of the file that the recipe's `weights` names."""
    start: Start | None = None
    """What was taken from that file; known once training has begun."""
    objective: Objective


@dataclass(frozen=True, kw_only=True)
class Retrain(Stored):
    """What is known of a retrain before it begins."""

    title: str
    """Such as "trial 17 of study retina-001"."""
    design: str
    """`arch_hash` of the detector."""
    describe: str
    """The design in one line."""
    origin: Origin
    recipe: Recipe
    versions: dict = field(default_factory=dict)
    chosen_batch_size: int | None = None
    """What --batch-size auto came to; None where the user or the recipe gave the batch size."""


@dataclass(frozen=True, kw_only=True)
class Metrics(Retrain):
    """metrics.json: a retrained model and its results."""

    params: int
    macs: int
    """At 640×640."""
    latency_ms: float | None = None
    machine: str | None = None
    """Where the latency was measured, if it counts."""
    ap: dict | None = None
    """easy, medium and hard AP in [0, 1] on the hold-out; None where that was trained on, too."""
    ap_on: str = ""
    accuracy_score: float | None = None
    speed_score: float | None = None
    score: float | None = None
    best_epoch: dict | None = None
    """epoch, ap, accuracy_score and size (px) of the best evaluation during training."""
    folder: str
    finished: float
    """Unix seconds."""
    seconds: float = 0.0
    """Of training."""
    workers: int = 1
    epochs: tuple[dict, ...] = ()
    """One entry an epoch: epoch, losses, lr, seconds, ap."""


METRICS = "metrics.json"


def read_metrics(folder: Path) -> Metrics | None:
    """metrics.json of a retrained model; None where there is no such model.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Metrics.read(folder / METRICS, "retrain again, or remove the folder")
    except FileNotFoundError:
        return None
