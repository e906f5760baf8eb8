"""python -m nas.replay: which sampler and which rungs find the most in the fewest epochs."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base import cli
from detector.base.errors import UserError
from detector.base.files import is_folder, write_text
from detector.base.plugins import load_plugins, loaded_plugins
from detector.config.shipped import find_file
from nas.samplers.proposer import SAMPLERS

if TYPE_CHECKING:
    from analysis.statistics.replays import Play
    from nas.search_space.space import SearchSpace
    from nas.study.recorded_table import Table
    from nas.tabular.simulator import Schedule

DESCRIPTION = """\
Replay searches on a table of trained designs, with every sampler under every schedule and many
seeds: the decisions are those of nas.search, but the results of training are looked up. Shows how
many epochs each combination needs: in the terminal, in replay.md, and as a figure in replay.png.

  python -m nas.replay                       # the shipped table
  python -m nas.replay --record runs/table     (of a search without a scheduler)"""

TABLE = Path("search_spaces/table.json")
SCHEDULES = ("12", "2,6,12", "2,6,12 front")
"""The default schedules: rungs, then any difference from eta 3 and promote: score."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.replay", DESCRIPTION)
    parser.add_argument(
        "--table",
        metavar="FILE",
        type=Path,
        default=TABLE,
        help=f"the table of trained designs (default: {TABLE})",
    )
    parser.add_argument(
        "--record",
        metavar="FOLDER",
        type=Path,
        help="write --table from the study in this folder, and exit",
    )
    parser.add_argument(
        "--space",
        metavar="FILE",
        type=Path,
        help="with --record: the study's search space, which must be in the table's folder "
        "(default: the table's name with .yaml)",
    )
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=cli.count,
        default=30,
        help="searches with each sampler and schedule (default: 30)",
    )
    parser.add_argument(
        "--samplers",
        metavar="NAMES",
        default=",".join(SAMPLERS),
        help=f"samplers to compare, comma-separated (default: {','.join(SAMPLERS)})",
    )
    parser.add_argument(
        "--schedules",
        metavar="RUNGS",
        nargs="+",
        default=list(SCHEDULES),
        help="schedules to compare: rungs in epochs, optionally with eta and front, such as 12 "
        "(all trials in full), 2,6,12 or '2,6,12 eta 2 front' "
        f"(default: {' '.join(map(repr, SCHEDULES))})",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=cli.count,
        default=len(os.sched_getaffinity(0)),
        help="number of processes (default: one per core)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("."),
        help="folder for replay.md and replay.png (default: the current one)",
    )
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    from nas.study.recorded_table import Table

    if args.record is not None:
        return _record(args)
    if not is_folder(args.output):
        raise UserError(f"--output {args.output}: is not a folder; create it first")
    samplers = args.samplers.split(",")
    unknown = set(samplers) - set(SAMPLERS)
    if unknown:
        raise UserError(f"--samplers {min(unknown)}: is not one of {', '.join(SAMPLERS)}")
    table, space = Table.load(find_file(args.table, "table"))
    schedules = [schedule(text, table) for text in args.schedules]
    plays = replay(table, space, samplers, schedules, args.seeds, args.jobs)
    from nas.tabular.report import report

    result = report(table, space, plays, args.output)
    print(result.caption)
    for grid in result.grids:
        grid.print()
    print(f"written: {', '.join(map(str, result.files))}")
    return result.data


def schedule(text: str, table: Table) -> Schedule:
    """Parses a schedule such as "2,6,12 eta 2 front".

    Raises:
        UserError: the text has another form, or the table has no AP at a rung.
    """
    from nas.tabular.simulator import Schedule

    try:
        first, *words = text.split()
        rungs = tuple(int(epochs) for epochs in first.split(","))
        front = "front" in words
        if front:
            words.remove("front")
        eta = float(words[1]) if words else 3.0
        if words[:1] not in ([], ["eta"]) or words[2:]:
            raise ValueError(words)
    except (ValueError, IndexError):
        raise UserError(
            f"--schedules {text!r}: must be comma-separated epochs, optionally followed by "
            "eta NUMBER and front, such as '2,6,12 eta 2 front'"
        ) from None
    unknown = set(rungs) - set(table.evaluated)
    if unknown or list(rungs) != sorted(set(rungs)) or rungs[-1] != table.full or not eta > 1:
        raise UserError(
            f"--schedules {text!r}: rungs must be ascending, end at {table.full}, and be epochs at "
            f"which the table has AP ({', '.join(map(str, table.evaluated))}); eta must be above 1"
        )
    return Schedule(rungs=rungs, eta=eta, promote="front" if front else "score")


def replay(
    table: Table,
    space: SearchSpace,
    samplers: list[str],
    schedules: list[Schedule],
    seeds: int,
    jobs: int = 1,
) -> dict[tuple[str, Schedule], list[Play]]:
    """All replays: (sampler, schedule) → one replay for each seed."""
    tasks = [
        (sampler, schedule, seed)
        for schedule in schedules
        for sampler in samplers
        for seed in range(seeds)
    ]
    plays: dict[tuple[str, Schedule], list[Play]] = {}
    for (sampler, schedule, _), play in zip(tasks, _replays(table, space, tasks, jobs)):
        plays.setdefault((sampler, schedule), []).append(play)
        if len(plays[sampler, schedule]) == seeds:
            print(f"replayed: {sampler}, {schedule.name}", file=sys.stderr, flush=True)
    return plays


def _replays(table: Table, space: SearchSpace, tasks: list, jobs: int) -> Iterator[Play]:
    if jobs == 1:
        _prepare(table, space)
        yield from map(_play, tasks)
        return
    import multiprocessing

    plugins = [str(plugin.path) for plugin in loaded_plugins()]
    with multiprocessing.get_context("spawn").Pool(jobs, _prepare, (table, space, plugins)) as pool:
        yield from pool.imap(_play, tasks, chunksize=5)


_prepared: tuple[Table, SearchSpace]


def _prepare(table: Table, space: SearchSpace, plugins: Sequence[str] = ()) -> None:
    """Set what all tasks of a process share."""
    global _prepared
    load_plugins(plugins)
    from nas.tabular.simulator import CachedSpace

    _prepared = (table, CachedSpace.of(space))


def _play(task: tuple[str, Schedule, int]) -> Play:
    from nas.tabular.simulator import BUDGET, play

    sampler, schedule, seed = task
    table, space = _prepared
    return play(table, space, sampler, schedule, seed, budget=BUDGET * table.full)


def _record(args: Namespace) -> dict:
    from nas.search_space.space import SearchSpace
    from nas.study.recorded_table import Table

    path = find_file(args.space or args.table.with_suffix(".yaml"), "space")
    if path.parent.resolve() != args.table.parent.resolve():
        raise UserError(f"--space {path}: must be in the folder of the table, {args.table.parent}")
    space = SearchSpace.load(path)
    table = Table.record(args.record, space)
    write_text(args.table, table.text())
    print(
        f"{args.table}: {len(table.rows)} of the {space.size()} designs of {path}, each trained "
        f"for {table.full} epochs"
    )
    return {"table": str(args.table), "designs": len(table.rows)}


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
