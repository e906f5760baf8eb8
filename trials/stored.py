"""The JSON files of a study: study.json, progress.json, and metrics.json of retrained models."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from detector.base.errors import ConfigError, UserError, first_line
from detector.base.files import cannot_read, write_text
from detector.base.json_file import read_json
from detector.base.struct import Struct
from detector.config.recipe import DataChoice, Recipe
from detector.data.types import WIDER
from detector.weights.pretrained import Start, Teacher
from trials.objective import Objective

FORMAT = 1
"""Version of the files that this code writes; it reads this and all earlier versions."""


@dataclass(frozen=True, kw_only=True)
class JsonFile(Struct):
    """A JSON file with the version of its format; files without one have version 1."""

    format: int = FORMAT

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """The content of a file.

        Args:
            remedy: what the user can do about a damaged file, for the message.

        Raises:
            FileNotFoundError: the file does not exist.
            UserError: it cannot be read, or a newer version of this program wrote it.
        """
        try:
            content = read_json(path)
            if isinstance(content, dict) and content.get("format", FORMAT) > FORMAT:
                raise UserError(
                    f"{path}: has format {content['format']}, written by a newer version of this "
                    f"program, which reads up to {FORMAT}; update the program"
                )
            return cls.from_dict(content)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise cannot_read(path, error, remedy) from error
        except (ValueError, TypeError, ConfigError) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from error

    @classmethod
    def read_if_there(cls, path: Path, remedy: str) -> Self | None:
        """As `read`; None if the file does not exist."""
        try:
            return cls.read(path, remedy)
        except FileNotFoundError:
            return None

    def write(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            UserError: the file cannot be written.
        """
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class Manifest(JsonFile):
    """study.json: what a study is. Written once, when the study is created."""

    name: str
    space: str
    """Name of the search space."""
    created: float
    """Unix seconds."""
    trials: int = 0
    """Designs to sample, unless a resumed search asks for more."""
    seed: int = 0
    sampler: str = "random"
    scheduler: str = "halving"
    """halving or none."""
    proxies: str = "short"
    """short or long, see `SearchSpace.on`."""
    space_hash: str = ""
    """Hash of the space's content, 12 hex digits."""
    budget: dict | None = None
    """The MAC budget that all designs meet, if the space has one (`Budget` as plain data)."""
    space_text: str = ""
    """Content of the space's YAML file."""
    data: DataChoice
    data_name: str
    data_fingerprint: str
    """Hash over the images, faces and split."""
    images: dict = field(default_factory=dict)
    """train, holdout and val → number of images."""
    objective: Objective
    versions: dict = field(default_factory=dict)
    """Package → version, and `commit` of this code, see `nas.study.versions`."""
    inherit: bool = False
    """Whether trials inherit the weights of the nearest trained design."""
    enqueue: str | None = None
    """Content of the --enqueue file, as JSON; None without one."""
    from_study: str | None = None
    """--from-study: another study whose designs and results are reused."""
    learnt_from: tuple[str, ...] = ()
    """Earlier studies and tables that the sampler starts from (prior.json)."""


@dataclass(frozen=True, kw_only=True)
class ProgressFile(JsonFile):
    """progress.json: how far a search says that it is, for those who follow it. Studies of older
    versions have none."""

    ended: bool
    """Whether nothing is left to train, or the search stopped because of failures; False while it
    runs, and if it was killed."""
    seconds_left: float | None = None
    """Estimated; None while that is not known."""


PROGRESS = "progress.json"


def read_progress(folder: Path) -> ProgressFile | None:
    """progress.json of a study; None if there is none.

    Raises:
        UserError: it cannot be read.
    """
    remedy = "delete it; a running search writes it anew"
    return ProgressFile.read_if_there(folder / PROGRESS, remedy)


@dataclass(frozen=True, kw_only=True)
class Origin(Struct):
    """Where a retrained model comes from, as the competition's rules ask; stored in its weights."""

    title: str
    """Such as "trial 17 of study retina-001"."""
    trial: int | None = None
    """The number of that trial; None of a preset."""
    study: str | None = None
    space: str | None = None
    data: DataChoice
    data_name: str
    data_fingerprint: str
    images: int
    """Number of training images."""
    with_holdout: bool = False
    """Whether the hold-out was used for training, too; then there is no AP on it."""
    weights_sha256: str | None = None
    """SHA-256 of the recipe's `weights` file."""
    start: Start | None = None
    """What was loaded from that file; known once training has started."""
    teacher: Teacher | None = None
    """What was learned from besides the labels; None means nothing."""
    objective: Objective

    def __post_init__(self):
        found = re.match(r"trial (\d+) of study ", self.title)
        if self.trial is None and found:  # of an older version
            object.__setattr__(self, "trial", int(found[1]))

    @property
    def identity(self) -> dict:
        """Plain data, equal for retrains from the same origin: without `start`, which follows from
        the weights, without `trial`, which the title names, and of the teacher only the file's
        content. Older versions gave the same; they called all photographs WIDER FACE."""
        data = replace(self, start=None).to_dict()
        del data["trial"]
        if self.data.path != "synthetic":
            data["data_name"] = WIDER
        teacher = data.pop("teacher")
        return data if teacher is None else data | {"teacher": teacher["weights"]["sha256"]}


@dataclass(frozen=True, kw_only=True)
class Retrain(JsonFile):
    """What is known about a retrain before it starts."""

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
    """The batch size that --batch-size auto chose; None without that flag."""


@dataclass(frozen=True, kw_only=True)
class Metrics(Retrain):
    """metrics.json: a retrained model and its results."""

    params: int
    macs: int
    """Multiply-accumulates at 640×640."""
    latency_ms: float | None = None
    machine: str | None = None
    """Where the latency was measured; None if latency is not part of the score."""
    ap: dict | None = None
    """easy, medium and hard AP in [0, 1] on the hold-out; None if it was used for training."""
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
    """Duration of the training."""
    workers: int = 1
    epochs: tuple[dict, ...] = ()
    """One entry per epoch: epoch, losses, lr, seconds, ap."""


@dataclass(frozen=True, kw_only=True)
class Round(Struct):
    """A round of a search: designs trained at one budget."""

    epochs: int
    size: int
    """Side of the training crops in px."""
    accuracy: dict
    """Number of each trial, as text → accuracy score on the hold-out at original image size."""


@dataclass(frozen=True, kw_only=True)
class RoundsFile(JsonFile):
    """rounds.json: the rounds after a search's proxies, and what they decided."""

    rounds: tuple[Round, ...]
    """Smallest budget first; the last one is the full training."""
    best: int
    """The trial with the best score in the last round."""
    scores: dict
    """Number of each trial of the last round, as text → its score there."""
    probability_of_best: float
    """That it is the best of all trials, those that were not trained longer included."""
    probability_beats_baseline: float | None = None
    """None if it is the baseline, or the baseline was never trained."""


ROUNDS = "rounds.json"


def read_rounds(folder: Path) -> RoundsFile | None:
    """rounds.json of a study; None if there is none.

    Raises:
        UserError: it cannot be read.
    """
    remedy = "delete it, then run the search with --resume"
    return RoundsFile.read_if_there(folder / ROUNDS, remedy)


METRICS = "metrics.json"


def read_metrics(folder: Path) -> Metrics | None:
    """metrics.json of a retrained model; None if there is no such model.

    Raises:
        UserError: it cannot be read.
    """
    return Metrics.read_if_there(folder / METRICS, "retrain again, or remove the folder")
