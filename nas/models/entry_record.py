"""What an entry says of itself in evaluation.json. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from detector.base.errors import ConfigError, UserError, first_line
from detector.base.json_file import read_json
from detector.base.struct import Struct
from detector.config.recipe import Evaluation
from nas.models.competition_rules import Rule
from nas.models.entry_files import RESULT

FORMAT = 1
"""Version of what an entry adds to evaluation.json; this code reads it and all earlier ones."""


@dataclass(frozen=True, kw_only=True)
class EntryFacts(Struct):
    """What an entry adds to the evaluation, under the key `entry`."""

    format: int = FORMAT
    by_config: bool
    """Whether the weights do not contain the design, which config.yaml has."""
    lists: str | None = None
    """Folder of the official lists; None means the one in the data folder, if any."""
    thop: dict = field(default_factory=dict)
    """params and macs as thop counts them, and without_rule: type of module → parameters that thop
    leaves out."""
    versions: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LevelAP(Struct):
    easy: float
    medium: float
    hard: float


@dataclass(frozen=True, kw_only=True)
class Recorded(Struct):
    """The part of evaluation.json that --check compares."""

    entry: EntryFacts
    params: int
    macs: int
    ap: LevelAP
    score: float
    latency_ms: float
    machine: str
    rules: tuple[Rule, ...]
    images: int
    data: str
    evaluation: Evaluation

    @classmethod
    def read(cls, folder: Path) -> Recorded:
        """Of an entry.

        Raises:
            UserError: the file cannot be read, or a newer version of this program wrote it.
        """
        try:
            content = read_json(folder / RESULT)
            version = content["entry"].get("format", FORMAT)
            if version > FORMAT:
                raise UserError(
                    f"{folder}: has format {version}, written by a newer version of this program, "
                    f"which reads up to {FORMAT}; update the program"
                )
            return cls.from_dict({f.name: content[f.name] for f in fields(cls)}, RESULT)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            raise UserError(f"{RESULT}: cannot be read ({first_line(error)})") from error
