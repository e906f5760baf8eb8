"""python -m nas.space: checks a space; how many designs it has, and what they cost."""

from __future__ import annotations

import math
import sys
from argparse import ArgumentParser, Namespace
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from analysis.records.trial_table import print_table
from detector.base.cli import parser as detector_parser
from detector.base.errors import UserError
from detector.base.output import print_wrapped
from detector.config.detector import arch_hash
from nas.engine.gate import Proposal, baseline, evaluate_cost
from nas.search_space.dimensions import Params
from nas.search_space.named import load_space
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SearchSpace
from nas.terminal import cli
from nas.terminal.format import count
from trials.constraints import Constraints
from trials.names import describe
from trials.record import Cost

DESCRIPTION = """\
Read and check a search space, and show the number of its designs, some examples, and the
distribution of parameters and MACs (at 640×640) over random draws. Nothing is built or trained.

  python -m nas.space search_spaces/retina.yaml
  python -m nas.space search_spaces/scrfd.yaml --budget 0.5G

Errors in the file are reported with their line numbers. --schema writes JSON Schemas, by which
editors complete and check spaces, presets and recipes while they are written."""

SHOWN = 10
VARIED = 60  # draws from whose neighbours the number of equal designs is estimated
MAX_NEIGHBOURS = 1_000  # of a draw, which are all resolved
ACCURACIES = (0.5, 0.6)  # for which an expression's scores are shown
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
    parser = detector_parser("nas.space", DESCRIPTION)
    parser.add_argument(
        "space",
        metavar="FILE",
        type=Path,
        nargs="?",
        help="the search space: a file, or a shipped one by name (retina is "
        "search_spaces/retina.yaml)",
    )
    cli.add_budget_flag(parser)
    parser.add_argument(
        "--draws",
        metavar="N",
        type=cli.count,
        default=500,
        help="random designs whose cost is computed (default: 500)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=cli.seed,
        default=0,
        help="random seed of the draws (default: 0)",
    )
    parser.add_argument(
        "--schema",
        metavar="DIR",
        type=Path,
        help="write space.schema.json, preset.schema.json and recipe.schema.json to DIR instead",
    )
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    if (args.space is None) == (args.schema is None):
        raise UserError("nas.space: give a search space, or --schema DIR")
    if args.schema is not None:
        return _write_schemas(args.schema)
    space = load_space(args.space, args.budget)
    trial = RandomTrial(f"nas.space/{args.seed}")
    proposals = [evaluate_cost(space, space.suggest(trial)) for _ in range(args.draws)]
    size = space.size()
    distinct = distinct_designs(space, [p.params for p in proposals[:VARIED]])
    print(
        f"{args.space}: valid; {len(space.dimensions)} dimensions"
        + (f", budget {space.budget}" if space.budget else "")
    )
    print(
        "designs: "
        + (
            "infinitely many, as a dimension is continuous"
            if size is None
            else f"{size:,} at most"
            + (f", about {distinct:.2g} different ones" if distinct else "")
        )
    )
    _print_designs([baseline(space), *proposals[:SHOWN]])
    feasible = [p for p in proposals if p.violation is None]
    if space.objective.score is not None:
        _print_score(space, [p.cost for p in feasible or proposals])
    if space.objective.growth_note:
        print()
        print_wrapped(space.objective.growth_note)
    shares = _shares_outside(space.constraints, proposals)
    print(
        f"\nof {len(proposals)} random draws {len(feasible) / len(proposals):.1%} are feasible, "
        f"{len({p.design for p in feasible})} different ones"
    )
    for cap, share in shares.items():
        side = "under" if cap.startswith("min") else "over"
        print(f"  {share:6.1%} {side} {cap} {getattr(space.constraints, cap):,}")
    only_feasible = bool(space.budget and feasible)
    costs, subset = (feasible, "feasible") if only_feasible else (proposals, "all")
    distributions = {
        "params": distribution([p.cost.params for p in costs]),
        "macs": distribution([p.cost.macs for p in costs]),
    }
    names = {"params": "parameters", "macs": "MACs"}
    for key, numbers in distributions.items():
        _print_distribution(f"{names[key]} of {subset} draws", numbers)
    return {
        "space": space.name,
        "designs_at_most": size,
        "different_about": distinct,
        "budget": space.budget.to_dict() if space.budget else None,
        "draws": len(proposals),
        "legal": len(feasible) / len(proposals),
        "share_outside": shares,
        "shown": [
            {
                "params": p.params,
                "design": p.design,
                "describe": describe(p.detector),
                "parameters": p.cost.params,
                "macs": p.cost.macs,
                "violation": p.violation,
            }
            for p in proposals[:SHOWN]
        ],
        "distribution_of": "legal" if only_feasible else "all",
        "distribution": distributions,
    }


def _write_schemas(folder: Path) -> dict:
    from nas.search_space.schema import write_schemas

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--schema {folder}: cannot be created ({error.strerror}); give another folder"
        ) from error
    paths = write_schemas(folder)
    print("\n".join(map(str, paths)))
    print(
        f"first line of a file that editors check by one of them, relative to the file:\n"
        f"  # yaml-language-server: $schema={paths[-1].name}"
    )
    return {"schemas": [str(path) for path in paths]}


def _print_designs(proposals: Sequence[Proposal]) -> None:
    """Print the baseline and some draws as a table."""
    print()
    print_table(
        f"the baseline and {len(proposals) - 1} random draws; MACs at 640×640",
        names=["baseline", *(f"draw {number}" for number in range(1, len(proposals)))],
        designs=[
            describe(p.detector) + (f" (infeasible: {p.violation})" if p.violation else "")
            for p in proposals
        ],
        columns={
            "params": [count(p.cost.params) for p in proposals],
            "MACs": [count(p.cost.macs) for p in proposals],
        },
        first="",
    )


def _print_score(space: SearchSpace, costs: Sequence[Cost]) -> None:
    """Print an expression with its values, which show a wrong unit or sign."""
    print(f"\nscore: {space.objective}")
    front = f"the front is that of accuracy and {space.objective.metric}"
    if space.objective.uses_latency:
        print(f"  of latency too, which a search measures; {front}")
        return
    own = Cost.of(space.base)
    low, high = (space.objective.score_of(accuracy, own) for accuracy in ACCURACIES)
    scores = [space.objective.score_of(ACCURACIES[0], cost) for cost in costs]
    print(
        f"  the baseline has {low:.3f} with accuracy {ACCURACIES[0]}, {high:.3f} with "
        f"{ACCURACIES[1]}; with {ACCURACIES[0]} draws have {min(scores):.3f} to {max(scores):.3f}\n"
        f"  {front}"
    )


def distinct_designs(space: SearchSpace, draws: Sequence[Params]) -> float | None:
    """Estimate of the number of different designs: parameters that differ only in what does not get
    built, such as the activation of an absent context, count once.

    Each draw represents all parameters of its branch of the space, and shares its design with as
    many of them as the single dimensions without effect on it suggest. None if a dimension is
    continuous, designs have to be fitted to a budget, or the dimensions have very many values.
    """
    size = space.size()
    if size is None or space.budget is not None:
        return None
    if sum(len(d.values() or ()) for d in space.design_dimensions()) > MAX_NEIGHBOURS:
        return None
    parents = {name for d in space.dimensions for name in d.when}
    represented = distinct = 0.0
    for params in draws:
        design = arch_hash(space.resolve(params)[0])
        branch, equal = 1, 1
        for dimension in space.design_dimensions():
            if dimension.active(params):
                values = dimension.values() or ()
                branch *= len(values)
                if dimension.name not in parents:
                    equal *= sum(
                        _has_design(space, {**params, dimension.name: value}, design)
                        for value in values
                    )
        represented += branch
        distinct += branch / equal
    return size * distinct / represented


def _has_design(space: SearchSpace, params: Params, design: str) -> bool:
    try:
        return arch_hash(space.resolve(params)[0]) == design
    except UserError:  # values that do not fit together are no design
        return False


def _shares_outside(constraints: Constraints, proposals: Sequence[Proposal]) -> dict[str, float]:
    """Share of the draws that violate each cap, whatever else they violate."""
    caps = {key: limit for key, limit in constraints.to_dict().items() if limit is not None}
    return {
        key: sum(
            Constraints(**{"max_params": None, key: limit}).violation(p.cost) is not None
            for p in proposals
        )
        / len(proposals)
        for key, limit in caps.items()
    }


def distribution(values: Sequence[int]) -> dict:
    """Quantiles, and a histogram on a log scale, as plain data."""
    ascending = sorted(values)
    return {
        "quantiles": {
            label: ascending[round(q * (len(values) - 1))] for label, q in QUANTILES.items()
        },
        "histogram": [
            {"from": low, "to": high, "count": number} for low, high, number in histogram(ascending)
        ],
    }


def _print_distribution(title: str, numbers: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    bins = numbers["histogram"]
    most, total = max(b["count"] for b in bins), sum(b["count"] for b in bins)
    for b in bins:
        table.add_row(
            f"{_edge(b['from'])} – {_edge(b['to'])}",
            "█" * round(BAR * b["count"] / most),
            f"{b['count'] / total:.1%}",
        )
    console = Console(highlight=False)
    console.print()
    console.print(table)
    quantiles = Table(box=None, pad_edge=False, header_style="")
    for label in numbers["quantiles"]:
        quantiles.add_column(label, justify="right")
    quantiles.add_row(*map(count, numbers["quantiles"].values()))
    console.print(quantiles)


def histogram(values: Sequence[float]) -> list[tuple[float, float, int]]:
    """(from, to, count) of positive numbers in bins between 1, 2 and 5 × powers of ten, or in ten
    bins of equal width if the numbers are within a factor of 2."""
    low, high = min(values), max(values)
    if high < 2 * low:
        width = (high - low) / 10 or low / 10
        edges = [low + index * width for index in range(11)]
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = [lead * 10.0**power for power in powers for lead in (1, 2, 5)]
        edges = marks[bisect_right(marks, low) - 1 : bisect_right(marks, high) + 1]
    last = len(edges) - 2
    counts = Counter(min(bisect_right(edges, value) - 1, last) for value in values)
    return [(low, high, counts[index]) for index, (low, high) in enumerate(pairwise(edges))]


def _edge(value: float) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g} {letter}"
    return f"{value:.4g}"


def main(argv: list[str] | None = None) -> int:
    return cli.main(make_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
