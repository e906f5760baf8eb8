"""What replays came to: printed, as Markdown, as a picture, as plain data."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from analysis import replays
from analysis.replay_figure import replay_png
from analysis.replays import Outcome, Play, Rung, Truth
from detector.base.files import write_text
from nas.search_space.space import SearchSpace
from nas.tabular.simulator import BUDGET, Schedule
from nas.tabular.table import Table

DRAWN = 20
"""Designs that random search trains in full: what it then has is the goal."""
PERCENTILE = 95
GRID = 200

Plays = Mapping[tuple[str, Schedule], list[Play]]


def report(table: Table, space: SearchSpace, plays: Plays, folder: Path) -> dict:
    """Print what the replays came to, write replay.md and replay.png into `folder`; returns it as
    plain data, where null stands for never.

    Args:
        plays: (sampler, schedule) → one play a seed.
    """
    truth = truth_of(table, space)
    goal = replays.best_of_draws(truth.score, min(DRAWN, len(table.rows)))
    percentile = float(np.quantile(truth.score, PERCENTILE / 100))
    searches = len(next(iter(plays.values())))
    judged = {"goal": goal, "percentile": percentile, "at": DRAWN * table.full}
    outcomes = {
        (sampler, kind.name): replays.outcome(played, truth, **judged)
        for (sampler, kind), played in plays.items()
    }
    outcomes |= {
        (words, "none"): replays.outcome(
            [replays.in_order(order[:BUDGET], table.full)], truth, **judged
        )
        for words, order in _by_cost(table).items()
    }
    ranked = replays.rungs(truth)

    caption = (
        f"{searches} searches of each kind on {len(table.rows)} trained designs, each "
        f"with {BUDGET * table.full} epochs to spend"
    )
    found = [_outcomes(outcomes, truth.full), _rungs(ranked)]
    print(caption)
    for grid in found:
        grid.print()
    picture = _picture(
        plays,
        truth,
        folder / "replay.png",
        title=caption,
        goals={f"random, {DRAWN} full budgets": goal, f"{PERCENTILE}th percentile": percentile},
    )
    write_text(folder / "replay.md", _markdown(table, caption, found, goal, percentile))
    print(f"written: {folder / 'replay.md'}, {picture}")
    return _finite(
        {
            "table": table.made,
            "goal": goal,
            "percentile": percentile,
            "at_epochs": judged["at"],
            "searches": searches,
            "rungs": [asdict(rung) for rung in ranked],
            "outcomes": [
                {"sampler": sampler, "schedule": kind, **asdict(one)}
                for (sampler, kind), one in outcomes.items()
            ],
        }
    )


def truth_of(table: Table, space: SearchSpace) -> Truth:
    return Truth(
        accuracy=table.accuracy,
        epochs=table.evaluated,
        speed=np.array([space.objective.speed_score(row.cost) for row in table.rows]),
    )


@dataclass
class Grid:
    """A table of texts, for the terminal and for Markdown."""

    title: str
    names: list[str]
    left: int
    """Columns of words, which come first; the others are numbers."""
    rows: list[list[str]] = field(default_factory=list)

    def print(self) -> None:
        from rich.console import Console
        from rich.table import Table as RichTable

        shown = RichTable(title=self.title, title_justify="left", title_style="bold")
        for place, name in enumerate(self.names):
            shown.add_column(name, justify="left" if place < self.left else "right")
        for row in self.rows:
            shown.add_row(*row)
        Console(width=None if sys.stdout.isatty() else 150).print(shown)

    def markdown(self) -> str:
        marks = ["---"] * self.left + ["--:"] * (len(self.names) - self.left)
        lines = ["| " + " | ".join(row) + " |" for row in (self.names, marks, *self.rows)]
        return f"## {self.title}\n\n" + "\n".join(lines) + "\n"


def _outcomes(outcomes: Mapping[tuple[str, str], Outcome], full: int) -> Grid:
    at = DRAWN * full
    grid = Grid(
        "Samplers and schedulers: medians with 95 % intervals",
        [
            "rungs",
            "sampler",
            "epochs to the goal",
            f"epochs to the {PERCENTILE}th percentile",
            f"best score at {at} epochs",
            f"hypervolume at {at}",
            f"final pick at {BUDGET * full}",
        ],
        left=2,
    )
    for (sampler, kind), one in outcomes.items():
        grid.rows.append(
            [
                kind,
                sampler,
                one.to_goal.text(0),
                one.to_percentile.text(0),
                one.score.text(3),
                one.hypervolume.text(3),
                one.pick.text(3),
            ]
        )
    return grid


def _rungs(ranked: list[Rung]) -> Grid:
    grid = Grid(
        "What an epoch tells of the full budget",
        ["epoch", "Kendall's τ", "Spearman's ρ", "score lost by keeping the best third"],
        left=0,
    )
    for rung in ranked:
        grid.rows.append(
            [
                str(rung.epoch),
                *(
                    f"{c.value:.2f} ({c.low:.2f}–{c.high:.2f})"
                    for c in (rung.kendall, rung.spearman)
                ),
                f"{rung.lost:.3f}",
            ]
        )
    return grid


def _picture(plays: Plays, truth: Truth, path: Path, **words) -> Path:
    """The first three schedules as columns."""
    grid = np.linspace(0, BUDGET * truth.full, GRID)
    kinds = list(dict.fromkeys(kind for _, kind in plays))[:3]
    return replay_png(
        grid,
        [
            (
                _words(kind),
                {
                    sampler: replays.curves(played, truth, grid)
                    for (sampler, other), played in plays.items()
                    if other == kind
                },
            )
            for kind in kinds
        ],
        path,
        **words,
    )


def _markdown(table: Table, caption: str, found: list[Grid], goal: float, percentile: float) -> str:
    made = table.made
    return f"""# Searches replayed on trained designs

{caption}. Made by `python -m nas.replay`; the designs by
`{made.get("command", "a search")}` (images {made.get("data", "")}, fingerprint
{made.get("data_fingerprint", "")}), in `search_spaces/{Path(table.space).stem}.json`.

The goal, {goal:.3f}, is the median score of random search after {DRAWN} designs trained in full;
{percentile:.3f} is the {PERCENTILE}th percentile of all designs. Only designs trained in full
count. The final pick is what the search hands over in the end. Intervals are bootstrap percentiles
over searches (of the rungs: over designs). "Never" means not within the epochs a search may spend.

![Best score and hypervolume against epochs](replay.png)

""" + "\n".join(grid.markdown() for grid in found)


def _words(kind: Schedule) -> str:
    if len(kind.rungs) == 1:
        return f"every trial {kind.rungs[0]} epochs"
    return (
        f"rungs {', '.join(map(str, kind.rungs))}: the best 1/{kind.eta:g}"
        + (" and the front" if kind.promote == "front" else "")
        + " go on"
    )


def _by_cost(table: Table) -> dict[str, list[int]]:
    """Rankings that know nothing but the cost."""
    rows = range(len(table.rows))
    return {
        f"{words} {name} first": sorted(
            rows, key=lambda i: sign * getattr(table.rows[i].cost, quantity)
        )
        for quantity, name in (("macs", "MACs"), ("params", "parameters"))
        for words, sign in (("fewest", 1), ("most", -1))
    }


def _finite(data):
    """`data` with None for infinities, which JSON does not have."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
