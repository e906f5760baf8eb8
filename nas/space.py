"""python -m nas.space: how many designs a space has, what they cost, and whether it holds
together."""

from __future__ import annotations

import math
import sys
from argparse import ArgumentParser, Namespace
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from detector.base.cli import parser as detector_parser
from detector.base.errors import UserError
from detector.config.detector import arch_hash
from nas.engine.gate import Draw, baseline, weigh
from nas.search_space.dimensions import Params
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from nas.terminal import cli
from nas.terminal.format import count
from trials.constraints import Constraints
from trials.names import describe

DESCRIPTION = """\
Read a search space, check it, and show what is in it: how many designs, some of them, and how
parameters and MACs (at 640×640) are distributed over random draws. Nothing is built or trained.

  python -m nas.space search_spaces/retina.yaml
  python -m nas.space search_spaces/scrfd.yaml --budget 0.5G

Mistakes in the file are told with their lines, all of them at once."""

SHOWN = 10
VARIED = 60  # draws whose neighbours tell how many parameters give the same design
BAR = 40  # characters of the longest bar
QUANTILES = {
    "least": 0.0,
    "10 %": 0.1,
    "25 %": 0.25,
    "median": 0.5,
    "75 %": 0.75,
    "90 %": 0.9,
    "most": 1.0,
}


def make_parser() -> ArgumentParser:
    made = detector_parser("nas.space", DESCRIPTION)
    made.add_argument(
        "space",
        metavar="FILE",
        type=Path,
        help="a file, or a shipped space by name: retina is search_spaces/retina.yaml",
    )
    cli.add_budget_flag(made)
    made.add_argument(
        "--draws",
        metavar="N",
        type=cli.count,
        default=500,
        help="random designs that are costed (default: 500)",
    )
    made.add_argument("--seed", metavar="N", type=int, default=0, help="of the draws (default: 0)")
    return made


def run(args: Namespace) -> dict:
    """Show a space as told on the command line; returns what --json writes."""
    space = cli.load_space(args)
    trial = RandomTrial(f"nas.space/{args.seed}")
    drawn = [weigh(space, space.suggest(trial)) for _ in range(args.draws)]
    size = space.size()
    distinct = distinct_designs(space, [found.params for found in drawn[:VARIED]])
    print(
        f"{args.space}: holds together; {len(space.dimensions)} dimensions"
        + (f", budget {space.budget}" if space.budget else "")
    )
    print(
        "designs: "
        + (
            "beyond counting, a dimension is continuous"
            if size is None
            else f"{size:,} at most"
            + (f", about {distinct:.2g} different ones" if distinct else "")
        )
    )
    print(baseline(space).line(0, "baseline"))
    for number, found in enumerate(drawn[:SHOWN], 1):
        print(found.line(number))
    legal = [found for found in drawn if found.violation is None]
    broken = _caps(space.constraints, drawn)
    print(
        f"\nof {len(drawn)} random draws {len(legal) / len(drawn):.1%} are legal, "
        f"{len({found.design for found in legal})} different ones"
    )
    for cap, share in broken.items():
        side = "under" if cap.startswith("min") else "over"
        print(f"  {share:6.1%} {side} {cap} {getattr(space.constraints, cap):,}")
    result = {
        "space": space.name,
        "designs_at_most": size,
        "different_about": distinct,
        "budget": space.budget.to_dict() if space.budget else None,
        "draws": len(drawn),
        "legal": len(legal) / len(drawn),
        "share_outside": broken,
        "shown": [
            {
                "params": f.params,
                "design": f.design,
                "describe": describe(f.detector),
                "parameters": f.cost.params,
                "macs": f.cost.macs,
                "violation": f.violation,
            }
            for f in drawn[:SHOWN]
        ],
    }
    shown, of = (legal, "legal") if space.budget and legal else (drawn, "all")
    return result | {"distribution_of": of, "distribution": _distributions(shown, of)}


def distinct_designs(space: SearchSpace, draws: Sequence[Params]) -> float | None:
    """About how many different designs a space has: parameters that change nothing which gets
    built, such as the activation where there is none, count once.

    Each draw stands for as many parameters as its branch of the space has, and shares its design
    with as many as the values of single dimensions that lead to the same one tell. None where that
    cannot be counted, or each design would have to be fitted to a budget.
    """
    size = space.size()
    if size is None or space.budget is not None:
        return None
    inner = {name for d in space.dimensions for name in d.when}
    stands_for = shared = 0.0
    for params in draws:
        design = arch_hash(space.resolve(params)[0])
        branch, same = 1, 1
        for dimension in space.design_dimensions():
            if dimension.active(params):
                values = dimension.values()
                branch *= len(values)
                if dimension.name not in inner:
                    same *= sum(
                        _is_same(space, {**params, dimension.name: value}, design)
                        for value in values
                    )
        stands_for += branch
        shared += branch / same
    return size * shared / stands_for


def _is_same(space: SearchSpace, params: Params, design: str) -> bool:
    try:
        return arch_hash(space.resolve(params)[0]) == design
    except UserError:  # values that do not go together are no design at all
        return False


def _caps(constraints: Constraints, drawn: Sequence[Draw]) -> dict[str, float]:
    """Share of the draws that break each cap, whatever else they break."""
    limits = {key: limit for key, limit in constraints.to_dict().items() if limit is not None}
    return {
        key: sum(
            Constraints(**{"max_params": None, key: limit}).violation(f.cost) is not None
            for f in drawn
        )
        / len(drawn)
        for key, limit in limits.items()
    }


def _distributions(drawn: Sequence[Draw], of: str) -> dict:
    """Quantiles and a histogram on a log scale of parameters and MACs, printed and returned."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    told = {}
    for name, values in (
        ("parameters", sorted(f.cost.params for f in drawn)),
        ("MACs", sorted(f.cost.macs for f in drawn)),
    ):
        quantiles = {label: values[round(q * (len(values) - 1))] for label, q in QUANTILES.items()}
        bins = histogram(values)
        table = Table(
            title=f"{name} of {of} draws",
            title_justify="left",
            box=None,
            show_header=False,
            pad_edge=False,
        )
        most = max(number for _, _, number in bins)
        for low, high, number in bins:
            table.add_row(
                f"{_edge(low)} – {_edge(high)}",
                "█" * round(BAR * number / most),
                f"{number / len(values):.1%}",
            )
        console.print()
        console.print(table)
        console.print(
            "  ".join(f"{label} {count(value)}" for label, value in quantiles.items()),
            soft_wrap=True,
        )
        told["macs" if name == "MACs" else "params"] = {
            "quantiles": quantiles,
            "histogram": [{"from": a, "to": b, "count": n} for a, b, n in bins],
        }
    return told


def histogram(values: Sequence[float]) -> list[tuple[float, float, int]]:
    """(from, to, how many) of positive numbers, in bins between 1, 2, 5 × powers of ten; in ten of
    one width where the numbers are within a factor of 2."""
    low, high = min(values), max(values)
    if high < 2 * low:
        width = (high - low) / 10 or low / 10
        edges = [low + place * width for place in range(11)]
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = [lead * 10.0**power for power in powers for lead in (1, 2, 5)]
        edges = marks[bisect_right(marks, low) - 1 : bisect_right(marks, high) + 1]
    last = len(edges) - 2
    counts = Counter(min(bisect_right(edges, value) - 1, last) for value in values)
    return [(low, high, counts[place]) for place, (low, high) in enumerate(pairwise(edges))]


def _edge(value: float) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g} {letter}"
    return f"{value:.4g}"


def main(argv: list[str] | None = None) -> int:
    return cli.main(make_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
