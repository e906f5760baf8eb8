"""Results of replays: as tables, as Markdown, as a figure, as plain data."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from analysis.figures.png.replays import replay_png
from analysis.statistics import replays
from analysis.statistics.replays import Outcome, Play, Rung, Truth
from detector.base.files import write_text
from nas.search_space.space import SearchSpace
from nas.study.recorded_table import Table
from nas.tabular.simulator import BUDGET, Schedule

RANDOM_DRAWS = 20
"""Designs that random search trains in full; its median best score is the goal."""
PERCENTILE = 95
GRID_POINTS = 200

Plays = Mapping[tuple[str, Schedule], list[Play]]
"""(sampler, schedule) → one replay for each seed."""


@dataclass(frozen=True, kw_only=True)
class Report:
    caption: str
    grids: tuple[Grid, ...]
    files: tuple[Path, ...]
    """What was written."""
    data: dict
    """Plain data, in which None stands for never."""


def report(table: Table, space: SearchSpace, plays: Plays, folder: Path) -> Report:
    """The results of replays; writes replay.md and replay.png into `folder`."""
    truth = truth_of(table, space)
    goal = replays.best_of_draws(truth.score, min(RANDOM_DRAWS, len(table.rows)))
    percentile = float(np.quantile(truth.score, PERCENTILE / 100))
    searches = len(next(iter(plays.values())))
    epochs = RANDOM_DRAWS * table.full
    outcome = partial(replays.outcome, truth=truth, goal=goal, percentile=percentile, at=epochs)
    outcomes = {
        (sampler, schedule.name): outcome(replayed)
        for (sampler, schedule), replayed in plays.items()
    }
    outcomes |= {
        (ranking, "none"): outcome([replays.in_order(order[:BUDGET], table.full)])
        for ranking, order in _cost_rankings(table).items()
    }
    rungs = replays.rungs(truth)

    caption = (
        f"{searches} searches of each kind on {len(table.rows)} trained designs, each "
        f"with a budget of {BUDGET * table.full} epochs"
    )
    grids = (_outcome_grid(outcomes, truth.full), _rung_grid(rungs))
    figure = _figure(
        plays,
        truth,
        folder / "replay.png",
        title=caption,
        goals={
            f"random, {RANDOM_DRAWS} full budgets": goal,
            f"{PERCENTILE}th percentile": percentile,
        },
    )
    page = folder / "replay.md"
    write_text(page, _markdown(table, caption, grids, goal, percentile))
    data = {
        "table": table.made,
        "goal": goal,
        "percentile": percentile,
        "at_epochs": epochs,
        "searches": searches,
        "rungs": [asdict(rung) for rung in rungs],
        "outcomes": [
            {"sampler": sampler, "schedule": schedule, **asdict(result)}
            for (sampler, schedule), result in outcomes.items()
        ],
    }
    return Report(caption=caption, grids=grids, files=(page, figure), data=_finite(data))


def truth_of(table: Table, space: SearchSpace) -> Truth:
    costs = [row.cost for row in table.rows]
    return Truth(
        accuracy=table.accuracy,
        epochs=table.evaluated,
        speed=np.array([space.objective.speed_score(cost) for cost in costs]),
        scores=space.objective.scores(table.accuracy.T, costs).T,
    )


@dataclass
class Grid:
    """A table of texts, for the terminal and for Markdown."""

    title: str
    names: list[str]
    text_columns: int
    """The first columns, which are words; the others are numbers."""
    rows: list[list[str]] = field(default_factory=list)

    def print(self) -> None:
        from rich.console import Console
        from rich.table import Table as RichTable

        rich_table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for index, name in enumerate(self.names):
            rich_table.add_column(name, justify="left" if index < self.text_columns else "right")
        for row in self.rows:
            rich_table.add_row(*row)
        Console(width=None if sys.stdout.isatty() else 150).print(rich_table)

    def markdown(self) -> str:
        rule = ["---"] * self.text_columns + ["--:"] * (len(self.names) - self.text_columns)
        lines = ["| " + " | ".join(row) + " |" for row in (self.names, rule, *self.rows)]
        return f"## {self.title}\n\n" + "\n".join(lines) + "\n"


def _outcome_grid(outcomes: Mapping[tuple[str, str], Outcome], full: int) -> Grid:
    epochs = RANDOM_DRAWS * full
    rows = [
        [
            schedule,
            sampler,
            outcome.to_goal.text(0),
            outcome.to_percentile.text(0),
            outcome.score.text(3),
            outcome.hypervolume.text(3),
            outcome.pick.text(3),
        ]
        for (sampler, schedule), outcome in outcomes.items()
    ]
    names = [
        "rungs",
        "sampler",
        "epochs to the goal",
        f"epochs to the {PERCENTILE}th percentile",
        f"best score at {epochs} epochs",
        f"hypervolume at {epochs}",
        f"final pick at {BUDGET * full}",
    ]
    return Grid("Samplers and schedulers: medians with 95 % intervals", names, 2, rows)


def _rung_grid(rungs: list[Rung]) -> Grid:
    rows = [
        [
            str(rung.epoch),
            *(f"{c.value:.2f} ({c.low:.2f}–{c.high:.2f})" for c in (rung.kendall, rung.spearman)),
            f"{rung.lost:.3f}",
        ]
        for rung in rungs
    ]
    names = ["epoch", "Kendall's τ", "Spearman's ρ", "score lost by keeping the best third"]
    return Grid("How well an epoch predicts the full budget", names, 0, rows)


def _figure(
    plays: Plays, truth: Truth, path: Path, *, title: str, goals: Mapping[str, float]
) -> Path:
    """The first three schedules as columns."""
    grid = np.linspace(0, BUDGET * truth.full, GRID_POINTS)
    schedules = list(dict.fromkeys(schedule for _, schedule in plays))[:3]
    columns = [
        (
            _describe(schedule),
            {
                sampler: replays.curves(replayed, truth, grid)
                for (sampler, other), replayed in plays.items()
                if other == schedule
            },
        )
        for schedule in schedules
    ]
    return replay_png(grid, columns, path, title=title, goals=goals)


def _markdown(
    table: Table, caption: str, grids: Sequence[Grid], goal: float, percentile: float
) -> str:
    made = table.made
    return f"""# Searches replayed on trained designs

{caption}. Made by `python -m nas.replay`; the designs were trained by
`{made.get("command", "a search")}` (images {made.get("data", "")}, fingerprint
{made.get("data_fingerprint", "")}) and are in `search_spaces/{Path(table.space).stem}.json`.

The goal, {goal:.3f}, is the median score of random search after {RANDOM_DRAWS} designs trained in
full; {percentile:.3f} is the {PERCENTILE}th percentile of all designs. Only designs trained in full
count. The final pick is the design that the search returns. Intervals are bootstrap percentiles
over searches (of the rungs: over designs). "Never" means not within the budget of a search.

![Best score and hypervolume against epochs](replay.png)

""" + "\n".join(grid.markdown() for grid in grids)


def _describe(schedule: Schedule) -> str:
    if len(schedule.rungs) == 1:
        return f"every trial {schedule.rungs[0]} epochs"
    return (
        f"rungs {', '.join(map(str, schedule.rungs))}: the best 1/{schedule.eta:g}"
        + (" and the front" if schedule.promote == "front" else "")
        + " promoted"
    )


def _cost_rankings(table: Table) -> dict[str, list[int]]:
    """Rankings of the rows by cost alone."""
    rows = range(len(table.rows))
    return {
        f"{extreme} {name} first": sorted(
            rows, key=lambda i: sign * getattr(table.rows[i].cost, quantity)
        )
        for quantity, name in (("macs", "MACs"), ("params", "parameters"))
        for extreme, sign in (("fewest", 1), ("most", -1))
    }


def _finite(data):
    """`data` with None in place of infinities, which JSON does not have."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
