"""Replays a search on a table: driver, gate, samplers and rungs are the real ones, the results of
training are looked up."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from analysis.statistics.replays import Play
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from detector.weights.file_names import LAST
from nas.engine.driver import Driver, TrialSetup
from nas.samplers.proposer import Proposer
from nas.search_space.dimensions import Value, enumerate_params
from nas.search_space.space import SearchSpace
from nas.study.recorded_table import Table, row_key
from nas.study.storage import Study
from trials.record import Cost, EpochResult, Status, TrialRecord
from trials.run import Segment, SegmentReport
from trials.tracking.tracker import NullTracker

WORKERS = 2
"""Trials trained in parallel, as on two cores."""

BUDGET = 24
"""Epochs that each search may spend, in full budgets."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When trials are paused, and which are promoted."""

    rungs: tuple[int, ...]
    """Epochs, ascending; a single one means that all trials are trained in full."""
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
    """One search for all designs of the table, in simulated time in which all epochs take as long.

    Args:
        space: the table's, preferably a `CachedSpace`.
        budget: epochs to spend on sampled designs, after which the search stops.
    """
    space = replace(space, rungs=schedule.rungs, eta=schedule.eta, promote=schedule.promote)
    rows = {row_key(row.params): index for index, row in enumerate(table.rows)}
    spent, clock = 0, 0
    busy: list[tuple[int, int, int, list[EpochResult], Segment]] = []  # a heap, by time of the end
    ends: list[tuple[int, int, int]] = []  # as the fields of Play
    with TemporaryDirectory() as name:
        folder = Path(name)
        study = InMemoryStudy(folder, _unavailable(space, rows))
        driver = Driver(
            cast(Study, study),
            space,
            NullTracker(),
            Proposer(space, sampler, seed=seed),
            TrialSetup(train=folder, holdout=folder),
            trials=len(rows),
        )
        while spent < budget:
            for segment in _start(driver, workers - len(busy)):
                record = study.records[segment.number]
                index = rows[row_key(record.params)] if segment.number else -1
                row = table.rows[index] if segment.number else table.baseline
                results = table.results(row, len(record.epochs), segment.until, segment.evaluate_at)
                heapq.heappush(
                    busy, (clock + len(results), segment.number, index, results, segment)
                )
            if not busy:
                break
            clock, number, index, results, segment = heapq.heappop(busy)
            Path(segment.workdir).mkdir(parents=True, exist_ok=True)
            (Path(segment.workdir) / LAST).touch()  # the driver looks for it
            for result in results:
                driver.handle_report(
                    SegmentReport(number=number, epoch=result, ended=result is results[-1])
                )
            if number:  # the baseline is the same in every search
                spent += len(results)
                ends.append((spent, index, segment.until))
    return Play(*np.array(ends, dtype=int).T)


def _start(driver: Driver, workers: int) -> Iterator[Segment]:
    """The segments that free workers start now."""
    for _ in range(workers):
        try:
            segment = driver.next_segment()
        except StopIteration:
            return
        if segment is None:
            return
        yield segment


class InMemoryStudy:
    """The part of `nas.study.storage.Study` that a driver uses.

    Args:
        unavailable: designs that the table lacks; infeasible records of them follow the baseline,
            so that the gate refuses them.
    """

    def __init__(self, folder: Path, unavailable: Sequence[TrialRecord]):
        self.folder, self.name = folder, "replay"
        self._records: list[TrialRecord] = []
        self._unavailable = unavailable

    @property
    def records(self) -> list[TrialRecord]:
        return list(self._records)

    def add(self, record: TrialRecord, distributions: Mapping[str, object]) -> None:
        self._records.append(record)
        if record.number == 0:
            self._records += self._unavailable

    def add_infeasible(
        self, records: Sequence[TrialRecord], distributions: Sequence[Mapping[str, object]]
    ) -> None:
        self._records += records

    def put(self, record: TrialRecord) -> None:
        self._records[record.number] = record


def _unavailable(space: SearchSpace, rows: Mapping[tuple, int]) -> list[TrialRecord]:
    records: list[TrialRecord] = []
    for params in enumerate_params(space.dimensions) or ():
        if row_key(params) not in rows:
            detector, recipe = space.resolve(params)
            cost = Cost.of(detector)
            records.append(
                TrialRecord(
                    number=len(records) + 1,
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
    return records


@dataclass(frozen=True, kw_only=True)
class CachedSpace(SearchSpace):
    """A space that resolves each design once, as the few of a table are drawn many times."""

    cache: dict = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, space: SearchSpace) -> CachedSpace:
        return cls(**{f.name: getattr(space, f.name) for f in fields(space)})

    def resolve(self, params: Mapping[str, Value]) -> tuple[Detector, Recipe]:
        key = row_key(params)
        if key not in self.cache:
            self.cache[key] = super().resolve(params)
        return self.cache[key]
