"""A table of trained designs: those of a small space with their learning curves.

Made once by an ordinary search that trains all of them in full, then kept as JSON, so that any way
of searching can be replayed on it without training anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.base.errors import UserError
from detector.base.struct import Struct
from nas.search_space.dimensions import Params
from nas.search_space.space import SearchSpace
from trials.folders import read_manifest
from trials.names import describe
from trials.record import Cost, EpochResult, Status, TrialRecord

LEVELS = ("easy", "medium", "hard")


@dataclass(frozen=True, kw_only=True)
class Row(Struct):
    """One trained design."""

    params: dict
    """What the space calls it by; empty for the baseline."""
    describe: str
    cost: Cost
    ap: tuple[tuple[float, float, float], ...]
    """Easy, medium, hard AP on the hold-out, each time it was evaluated."""
    seconds: tuple[float, ...]
    """Training and evaluation of each epoch."""

    @classmethod
    def of(cls, record: TrialRecord) -> Row:
        """A completed trial."""
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
    """File of the space, beside the table's."""
    made: dict
    """Command, images, versions: where the numbers come from."""
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
        """float [rows, len(evaluated)], mean of the three APs."""
        return np.array([row.ap for row in self.rows]).mean(axis=2)

    def results(
        self, row: Row, since: int, until: int, evaluate_at: Sequence[int]
    ) -> list[EpochResult]:
        """What a worker would tell that trains `row` on from epoch `since` to `until`.

        Raises:
            UserError: an epoch of `evaluate_at` has no AP.
        """
        unknown = set(evaluate_at) - set(self.evaluated)
        if unknown:
            raise UserError(
                f"the table has no AP at epoch {min(unknown)}, but at "
                f"{', '.join(map(str, self.evaluated))}; choose rungs among them"
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
            UserError: not a table, or its rows are not designs of its space.
        """
        try:
            table = cls.from_dict(json.loads(path.read_text()), str(path))
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: no such file; record a table with python -m nas.replay "
                "--record STUDY_FOLDER"
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a recorded table ({error}); record it again") from error
        space = SearchSpace.load(path.parent / table.space)
        table.check(space, str(path))
        return table, space

    def check(self, space: SearchSpace, where: str) -> None:
        """That the rows are designs of the space, each once, all trained alike.

        Raises:
            UserError: they are not.
        """
        if not self.rows or len({key_of(row.params) for row in self.rows}) != len(self.rows):
            raise UserError(f"{where}: no design, or one that stands twice; record the table again")
        if self.full != space.rungs[-1]:
            raise UserError(
                f"{where}: designs were trained for {self.full} epochs, {space.path} "
                f"has {space.rungs[-1]}; record the table with its own space"
            )
        for row in self.rows:
            space.distributions(row.params)  # refuses what the space does not have
        for row in (self.baseline, *self.rows):
            if (len(row.ap), len(row.seconds)) != (len(self.evaluated), self.full):
                raise UserError(
                    f"{where}: {row.describe} has {len(row.seconds)} epochs, "
                    f"{len(row.ap)} of them evaluated, unlike others; train it anew"
                )

    @classmethod
    def record(cls, folder: Path, space: SearchSpace) -> Table:
        """What a search of `space` has trained in full.

        Args:
            folder: of its study.

        Raises:
            UserError: the study has no baseline, or its trials were not trained alike.
        """
        from analysis.load import load_records

        records, manifest = load_records(folder), read_manifest(folder)
        done = [r for r in records if r.status is Status.COMPLETED]
        if not done or done[0].number:
            raise UserError(f"{folder}: no baseline trained in full; go on with the search")
        made = {
            "command": f"python -m nas.search --space search_spaces/{space.path.name} "
            f"--trials {manifest['trials']} --sampler {manifest['sampler']} "
            f"--scheduler {manifest['scheduler']} --data data/widerface",
            "seed": manifest["seed"],
            "data": manifest["data_name"],
            "data_fingerprint": manifest["data_fingerprint"],
            "images": manifest["images"],
            "space_hash": manifest["space_hash"],
            "versions": manifest["versions"],
        }
        table = cls(
            space=space.path.name,
            made=made,
            baseline=Row.of(done[0]),
            evaluated=tuple(e.epoch for e in done[0].epochs if e.ap is not None),
            rows=tuple(sorted(map(Row.of, done[1:]), key=lambda row: row.cost.macs)),
        )
        table.check(space, str(folder))
        return table

    def text(self) -> str:
        """As JSON, a line for each design."""
        data = self.to_dict()
        rows = data.pop("rows")
        head = json.dumps(data, indent=1).removesuffix("\n}")
        lines = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in rows)
        return f'{head},\n "rows": [\n  {lines}\n ]\n}}\n'


def key_of(params: Params) -> tuple:
    """Parameters as something to look rows up by."""
    return tuple(sorted(params.items()))
