"""A search played on a table: the driver, its gate, samplers and rungs are the real ones; what a
worker would train is looked up."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from analysis.replays import Play
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from nas.engine.driver import Caches, Driver
from nas.search_space.dimensions import every_design
from nas.search_space.space import SearchSpace
from nas.tabular.table import Table, key_of
from trials.record import Cost, Status, TrialRecord
from trials.run import Segment, SegmentReport
from trials.tracking.tracker import NullTracker

WORKERS = 2
"""Trials trained at once: as on two cores."""

BUDGET = 24
"""Full budgets that each search may spend in epochs."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When trials are paused, and which go on."""

    rungs: tuple[int, ...]
    """Epochs, ascending; one alone: all trials are trained in full."""
    eta: float = 3
    promote: str = "score"

    @property
    def name(self) -> str:
        if len(self.rungs) == 1:
            return "none"
        return f"{'-'.join(map(str, self.rungs))} η{self.eta:g}" + (
            " front" if self.promote == "front" else ""
        )


def play(
    table: Table,
    space: SearchSpace,
    sampler: str,
    schedule: Schedule,
    seed: int,
    *,
    budget: float = math.inf,
    workers: int = WORKERS,
) -> Play:
    """One search for all designs of the table, with a clock by which every epoch takes as long.

    Args:
        space: the table's, best as a `Remembering` one.
        budget: epochs to spend on sampled designs; then the search stops, whatever is unfinished.
    """
    space = replace(space, rungs=schedule.rungs, eta=schedule.eta, promote=schedule.promote)
    rows = {key_of(row.params): index for index, row in enumerate(table.rows)}
    absent = _absent(space, rows)
    spent, clock, busy, ends = 0, 0, [], []
    with TemporaryDirectory() as name:
        folder = Path(name)
        study = Ledger(folder, absent)
        driver = Driver(
            study,
            space,
            NullTracker(),
            trials=len(rows),
            sampler=sampler,
            seed=seed,
            rungs=schedule.rungs,
            caches=Caches(train=folder, holdout=folder),
            device="cpu",
            threads=1,
        )
        while spent < budget:
            for segment in _hired(driver, workers - len(busy)):
                record = study.records[segment.number]
                index = rows[key_of(record.params)] if segment.number else -1
                row = table.rows[index] if segment.number else table.baseline
                results = table.results(row, len(record.epochs), segment.until, segment.evaluate_at)
                heapq.heappush(
                    busy, (clock + len(results), segment.number, index, results, segment)
                )
            if not busy:
                break
            clock, number, index, results, segment = heapq.heappop(busy)
            Path(segment.workdir).mkdir(parents=True, exist_ok=True)
            (Path(segment.workdir) / "last.pt").touch()  # the driver looks for it
            for result in results:
                driver.take(SegmentReport(number=number, epoch=result, ended=result is results[-1]))
            if number:  # the baseline costs and brings the same in every search
                spent += len(results)
                ends.append((spent, index, segment.until))
    return Play(*np.array(ends, dtype=int).T)


def _hired(driver: Driver, free: int) -> Iterator[Segment]:
    """What `free` workers begin with now."""
    for _ in range(free):
        try:
            segment = driver.next_segment()
        except StopIteration:
            return
        if segment is None:
            return
        yield segment


class Ledger:
    """Records of a search in memory: of `nas.study.storage.Study` what a driver asks for.

    Args:
        absent: designs that the table lacks. They follow the baseline as infeasible, so that
            nobody draws them.
    """

    def __init__(self, folder: Path, absent: Sequence[TrialRecord]):
        self.folder, self.name = folder, "replay"
        self._records: list[TrialRecord] = []
        self._absent = absent

    @property
    def records(self) -> list[TrialRecord]:
        return list(self._records)

    def add(self, record: TrialRecord, distributions: Mapping[str, object]) -> None:
        self._records.append(record)
        if record.number == 0:
            self._records += self._absent

    def add_infeasible(self, records: Sequence[TrialRecord]) -> None:
        self._records += records

    def put(self, record: TrialRecord) -> None:
        self._records[record.number] = record


def _absent(space: SearchSpace, rows: Mapping[tuple, int]) -> list[TrialRecord]:
    found = []
    for params in every_design(space.dimensions) or ():
        if key_of(params) not in rows:
            detector, recipe = space.resolve(params)
            cost = Cost.of(detector)
            found.append(
                TrialRecord(
                    number=len(found) + 1,
                    status=Status.INFEASIBLE,
                    design=arch_hash(detector),
                    detector=detector,
                    recipe=recipe,
                    params=params,
                    cost=cost,
                    speed_score=space.objective.speed_score(cost),
                    reason="not in the table",
                )
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Remembering(SearchSpace):
    """A space that resolves each design once: the few of a table are drawn again and again."""

    resolved: dict = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, space: SearchSpace) -> Remembering:
        return cls(**{f.name: getattr(space, f.name) for f in fields(space)})

    def resolve(self, params: Mapping) -> tuple[Detector, Recipe]:
        key = key_of(params)
        if key not in self.resolved:
            self.resolved[key] = super().resolve(params)
        return self.resolved[key]
