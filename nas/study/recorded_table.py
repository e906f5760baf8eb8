"""A table of trained designs: those of a small space with their learning curves.

Recorded once, as JSON, from an ordinary search that trains all of them in full, so that any kind of
search can be replayed on it without training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.base.errors import UserError
from detector.base.files import cannot_read
from detector.base.json_file import read_json
from detector.base.struct import Struct
from nas.search_space.dimensions import Value
from nas.search_space.space import SearchSpace
from trials.folders import read_manifest
from trials.names import describe
from trials.record import LEVELS, Cost, EpochResult, Status, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Row(Struct):
    """One trained design."""

    params: dict
    """Its parameters in the space; empty for the baseline."""
    describe: str
    cost: Cost
    ap: tuple[tuple[float, float, float], ...]
    """Easy, medium and hard AP on the hold-out at each of `Table.evaluated`."""
    seconds: tuple[float, ...]
    """Time of training and evaluation in each epoch."""

    @classmethod
    def of(cls, record: TrialRecord) -> Row:
        """The row of a completed trial."""
        return cls(
            params=record.params,
            describe=describe(record.detector),
            cost=Cost(params=record.cost.params, macs=record.cost.macs),
            ap=tuple(
                tuple(round(e.ap[level], 5) for level in LEVELS)
                for e in record.epochs
                if e.ap is not None
            ),
            seconds=tuple(round(e.seconds, 1) for e in record.epochs),
        )


@dataclass(frozen=True, kw_only=True)
class Table(Struct):
    space: str
    """File name of the space, in the same folder."""
    made: dict
    """How the numbers were made: command, images, versions."""
    evaluated: tuple[int, ...]
    """Epochs (1-based) after which AP was measured; the last one is the full budget."""
    baseline: Row
    rows: tuple[Row, ...]
    """Designs of the space, cheapest first."""

    @property
    def full(self) -> int:
        """Epochs of the full budget."""
        return self.evaluated[-1]

    @property
    def accuracy(self) -> np.ndarray:
        """Mean of the three APs, float [rows, len(evaluated)]."""
        return np.array([row.ap for row in self.rows]).mean(axis=2)

    def results(
        self, row: Row, since: int, until: int, evaluate_at: Sequence[int]
    ) -> list[EpochResult]:
        """The reports of a worker that trains `row` after epoch `since` until epoch `until`.

        Raises:
            UserError: an epoch of `evaluate_at` has no AP.
        """
        unknown = set(evaluate_at) - set(self.evaluated)
        if unknown:
            raise UserError(
                f"the table has no AP at epoch {min(unknown)}, only at "
                f"{', '.join(map(str, self.evaluated))}; choose rungs among these"
            )
        return [
            EpochResult(
                epoch=epoch,
                losses={},
                lr=0.0,
                seconds=row.seconds[epoch - 1],
                ap=dict(zip(LEVELS, row.ap[self.evaluated.index(epoch)]))
                if epoch in evaluate_at
                else None,
            )
            for epoch in range(since + 1, until + 1)
        ]

    @classmethod
    def load(cls, path: Path) -> tuple[Table, SearchSpace]:
        """A recorded table and its space.

        Raises:
            UserError: this is not a table, or its rows are not designs of its space.
        """
        try:
            table = cls.from_dict(read_json(path), str(path))
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: no such file; record a table with python -m nas.replay "
                "--record STUDY_FOLDER"
            ) from error
        except OSError as error:
            raise cannot_read(path, error, "record it again") from error
        except ValueError as error:
            raise UserError(f"{path}: not a recorded table ({error}); record it again") from error
        space = SearchSpace.load(path.parent / table.space)
        table.check(space, str(path))
        return table, space

    def check(self, space: SearchSpace, where: str) -> None:
        """Check that the rows are different designs of the space, all trained for the same epochs.

        Raises:
            UserError: they are not.
        """
        if not self.rows or len({row_key(row.params) for row in self.rows}) != len(self.rows):
            raise UserError(
                f"{where}: has no design, or one that is listed twice; record the table again"
            )
        if self.full != space.rungs[-1]:
            raise UserError(
                f"{where}: designs were trained for {self.full} epochs, {space.path} "
                f"has {space.rungs[-1]}; record the table with its own space"
            )
        for row in self.rows:
            space.distributions(row.params)  # raises for parameters of another space
        for row in (self.baseline, *self.rows):
            if (len(row.ap), len(row.seconds)) != (len(self.evaluated), self.full):
                raise UserError(
                    f"{where}: {row.describe} has {len(row.seconds)} epochs, "
                    f"{len(row.ap)} of them evaluated, unlike others; train it again"
                )

    @classmethod
    def record(cls, folder: Path, space: SearchSpace) -> Table:
        """The table of all designs that a search of `space` has trained in full.

        Args:
            folder: of its study.

        Raises:
            UserError: the study has no baseline, or its trials were trained for different epochs.
        """
        from analysis.records.load import load_records

        records, manifest = load_records(folder), read_manifest(folder)
        completed = [r for r in records if r.status is Status.COMPLETED]
        if not completed or completed[0].number:
            raise UserError(f"{folder}: no baseline trained in full; resume the search")
        made = {
            "command": f"python -m nas.search --space search_spaces/{space.path.name} "
            f"--trials {manifest.trials} --sampler {manifest.sampler} "
            f"--scheduler {manifest.scheduler} --data data/widerface",
            "seed": manifest.seed,
            "data": manifest.data_name,
            "data_fingerprint": manifest.data_fingerprint,
            "images": manifest.images,
            "space_hash": manifest.space_hash,
            "versions": manifest.versions,
        }
        table = cls(
            space=space.path.name,
            made=made,
            baseline=Row.of(completed[0]),
            evaluated=tuple(e.epoch for e in completed[0].epochs if e.ap is not None),
            rows=tuple(sorted(map(Row.of, completed[1:]), key=lambda row: row.cost.macs)),
        )
        table.check(space, str(folder))
        return table

    def text(self) -> str:
        """As JSON, with one line for each design."""
        return text_by_rows(self)


def text_by_rows(table: Struct) -> str:
    """A struct that has `rows` as JSON, with one line for each row."""
    data = table.to_dict()
    rows = data.pop("rows")
    head = json.dumps(data, indent=1).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return f'{head},\n "rows": [\n  {lines}\n ]\n}}\n'


def row_key(params: Mapping[str, Value]) -> tuple:
    """Parameters as a key to look up rows by."""
    return tuple(sorted(params.items()))
