"""python -m analysis.choose: the front's candidates within limits, and how to retrain one."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence

from analysis.correlation import score_deviation, tied_with_best
from analysis.front import front_data, name_of
from analysis.studies import StudyData, load_study
from detector.base import cli
from detector.base.errors import UserError
from trials.folders import add_runs_dir
from trials.names import describe
from trials.record import TrialRecord

DESCRIPTION = """\
Print the designs of a study's front that keep to the limits given, best score first, how far
their scores can be told apart, and the command that retrains one.

  python -m analysis.choose --study retina-001 --max-macs 1G
  python -m analysis.choose --study retina-001 --max-params 2M --min-ap-hard 0.3"""

LEVELS = ("easy", "medium", "hard")


def make_parser() -> ArgumentParser:
    made = cli.parser("analysis.choose", DESCRIPTION)
    shared = made.add_argument_group("common to all commands")
    add_runs_dir(shared)
    shared.add_argument("--study", metavar="NAME", help="the study (default: the newest)")
    limits = made.add_argument_group("limits (AP as measured in the search, on its hold-out)")
    limits.add_argument("--max-macs", metavar="N", help="at 640×640, such as 1G or 500M")
    limits.add_argument("--max-params", metavar="N", help="such as 2M")
    limits.add_argument("--max-latency", metavar="MS", help="of one 640×640 image, such as 20")
    for level in LEVELS:
        limits.add_argument(f"--min-ap-{level}", metavar="AP", help="in [0, 1], such as 0.6")
    return made


def run(args: Namespace) -> dict:
    """Print the candidates; returns what --json writes."""
    limits = limits_of(args)
    study = load_study(args.runs_dir, args.study)
    if args.max_latency is not None and all(r.cost.latency_ms is None for r in study.completed):
        raise UserError(
            f"--max-latency: study {study.name} measured no latency; limit --max-macs "
            "instead, or let python -m nas.evaluate measure a retrained model"
        )
    kept = [r for r in study.completed if all(keeps(r) for keeps in limits)]
    if not kept:
        raise UserError(
            f"study {study.name}: none of its {len(study.completed)} completed trials "
            f"keeps to {_told(args)}; {_nearest(study, args)}"
        )
    # The front of what keeps to the limits: a design may be beaten only by ones that do not.
    front = sorted(front_data(kept, study.metric).front, key=lambda r: (-r.score, r.number))
    deviation, source = score_deviation(study.comparisons)
    known = deviation == deviation
    tied = tied_with_best([r.score for r in front], deviation) if known else 0
    _print(study, front, deviation if known else None, source, tied, args)
    return {
        "study": study.name,
        "score_deviation": deviation if known else None,
        "tied": tied,
        "candidates": [
            {
                "number": r.number,
                "score": r.score,
                "ap": r.ap,
                "params": r.cost.params,
                "macs": r.cost.macs,
                "latency_ms": r.cost.latency_ms,
                "design": r.design,
                "describe": describe(r.detector),
                "command": _command(study, r, args),
            }
            for r in front
        ],
    }


def limits_of(args: Namespace) -> list[Callable[[TrialRecord], bool]]:
    """The limits given, each as a test of a completed trial.

    Raises:
        UserError: one is not a number, or out of its range.
    """
    tests: list[Callable[[TrialRecord], bool]] = []
    for key, value in (
        ("macs", lambda r: r.cost.macs),
        ("params", lambda r: r.cost.params),
        ("latency", lambda r: r.cost.latency_ms),
    ):
        text = getattr(args, f"max_{key}")
        if text is not None:
            limit = cli.quantity(text, f"--max-{key}")
            tests.append(
                lambda r, value=value, limit=limit: value(r) is not None and value(r) <= limit
            )
    for level in LEVELS:
        text = getattr(args, f"min_ap_{level}")
        if text is not None:
            least = cli.quantity(text, f"--min-ap-{level}")
            if least > 1:
                raise UserError(f"--min-ap-{level} {text}: must be in [0, 1], such as 0.6")
            tests.append(lambda r, level=level, least=least: r.ap[level] >= least)
    return tests


def _told(args: Namespace) -> str:
    keys = ("max_macs", "max_params", "max_latency", *(f"min_ap_{level}" for level in LEVELS))
    return " ".join(
        f"--{key.replace('_', '-')} {getattr(args, key)}"
        for key in keys
        if getattr(args, key) is not None
    )


def _nearest(study: StudyData, args: Namespace) -> str:
    """What the study has to offer, for whoever asked too much."""
    completed = study.completed
    parts = [
        f"the fewest MACs are {min(r.cost.macs for r in completed) / 1e9:.3f} G, the fewest "
        f"parameters {min(r.cost.params for r in completed):,}"
    ]
    if args.max_latency is not None:
        fastest = min(r.cost.latency_ms for r in completed if r.cost.latency_ms is not None)
        parts.append(f"the shortest latency {fastest:.1f} ms")
    parts += [
        f"the highest {level} AP is {max(r.ap[level] for r in completed):.3f}"
        for level in LEVELS
        if getattr(args, f"min_ap_{level}") is not None
    ]
    return ", ".join(parts)


def _print(
    study: StudyData,
    front: Sequence[TrialRecord],
    deviation: float | None,
    source: str,
    tied: int,
    args: Namespace,
) -> None:
    from rich.console import Console
    from rich.table import Table

    limits = _told(args)
    table = Table(
        title=f"{study.name}: {len(front)} candidates"
        + (f" within {limits}" if limits else "")
        + f", the front of {len(study.completed)} "
        "completed trials",
        title_justify="left",
        title_style="bold",
    )
    latency = any(r.cost.latency_ms is not None for r in front)
    for name in (
        "trial",
        "design",
        "score",
        *LEVELS,
        "G MACs",
        "parameters",
        *(["ms"] if latency else []),
        "retrained",
    ):
        table.add_column(
            name,
            justify="left" if name in ("trial", "design") else "right",
            no_wrap=name != "design",
        )
    for place, r in enumerate(front):
        model = study.retrained.get(r.number)
        score = model.metrics.get("score") if model else None
        spread = f" ±{deviation:.3f}" if deviation is not None else ""
        table.add_row(
            name_of(r) + (" =" if tied > 1 and place < tied else ""),
            describe(r.detector),
            f"{r.score:.3f}{spread}",
            *(f"{r.ap[level]:.3f}" for level in LEVELS),
            f"{r.cost.macs / 1e9:.3f}",
            f"{r.cost.params:,}",
            *(
                [f"{r.cost.latency_ms:.1f}" if r.cost.latency_ms is not None else "–"]
                if latency
                else []
            ),
            f"{score:.3f}" if score is not None else "–",
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    speed = f"the speed term is {'measured' if study.metric == 'latency_ms' else 'exact'}"
    if deviation is None:
        print(
            "how far scores can be told apart is not known: too few designs were trained at two "
            "budgets"
        )
    elif tied > 1:
        print(
            f"the first {tied} (=) cannot be told apart at this budget: ± is one standard "
            f"deviation, from how accuracy scatters {source}; {speed}"
        )
    else:
        print(
            f"the first one stands out: ± is one standard deviation, from how accuracy scatters "
            f"{source}; {speed}"
        )
    flags = _flags(study, args)
    print(f"next:\n  {_command(study, front[0], args)}")
    if tied > 1 and not limits:
        print(f"  python -m nas.retrain --top {min(tied, 4)}{flags}      (the hold-out chooses)")


def _command(study: StudyData, record: TrialRecord, args: Namespace) -> str:
    return f"python -m nas.retrain --trial {record.number}{_flags(study, args)}"


def _flags(study: StudyData, args: Namespace) -> str:
    runs = "" if str(args.runs_dir) == "runs" else f" --runs-dir {args.runs_dir}"
    return f" --study {study.name}{runs}"


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
