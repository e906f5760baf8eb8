"""python -m analysis.choose: the front's candidates within limits, and how to retrain one."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from analysis.records.studies import StudyData, load_study
from analysis.records.trial_table import ap_columns, cost_columns, print_table
from analysis.statistics.choice import Choice, choose_from
from analysis.statistics.front import ap_of, name_of
from detector.base import cli
from detector.base.errors import UserError
from detector.base.output import counted, print_wrapped
from trials.folders import add_runs_dir
from trials.hints import retrain_command, top_command
from trials.names import describe
from trials.record import LEVELS, TrialRecord

DESCRIPTION = """\
Print the designs on a study's front that keep to the given limits, best score first, whether
their scores differ significantly, and the command that retrains one.

  python -m analysis.choose --study retina-001 --max-macs 1G
  python -m analysis.choose --study retina-001 --max-params 2M --min-ap-hard 0.3"""


def make_parser() -> ArgumentParser:
    parser = cli.parser("analysis.choose", DESCRIPTION)
    shared = parser.add_argument_group("common to all commands")
    add_runs_dir(shared)
    shared.add_argument("--study", metavar="NAME", help="the study (default: the newest)")
    limits = parser.add_argument_group("limits (AP as measured in the search, on its hold-out)")
    limits.add_argument("--max-macs", metavar="N", help="at 640×640, such as 1G or 500M")
    limits.add_argument("--max-params", metavar="N", help="such as 2M")
    limits.add_argument(
        "--max-latency", metavar="MS", help="in ms, for one 640×640 image, such as 20"
    )
    for level in LEVELS:
        limits.add_argument(f"--min-ap-{level}", metavar="AP", help="in [0, 1], such as 0.6")
    return parser


def run(args: Namespace) -> dict:
    """Print the candidates; returns what --json writes."""
    limits = limits_of(args)
    study = load_study(args.runs_dir, args.study)
    if args.max_latency is not None and all(r.cost.latency_ms is None for r in study.completed):
        raise UserError(
            f"--max-latency: study {study.name} measured no latency; use --max-macs instead, "
            "or measure a retrained model with python -m nas.evaluate"
        )
    allowed = [r for r in study.completed if all(is_within(r) for is_within in limits)]
    if not allowed:
        raise UserError(
            f"study {study.name}: none of its {len(study.completed)} completed trials "
            f"is within {_limit_flags(args)}; {_nearest(study, args)}"
        )
    # Of the allowed designs alone: only designs beyond the limits may dominate one of them.
    choice = choose_from(allowed, study.metric, study.score_deviation)
    front = choice.candidates
    _print_table(study, choice, args)
    if note := study.manifest.objective.growth_note:
        print_wrapped(note)
    print_wrapped(choice.verdict(study.manifest.objective.uses_latency, mark=" (=)"))
    if choice.probability is not None:
        print_wrapped(
            f"probability that {name_of(choice.best)} is the best of {choice.considered} trials: "
            f"{choice.probability:.0%}"
        )
    print(f"next:\n  {_command(study, front[0], args)}")
    if choice.tied > 1 and not limits:
        print(f"  {top_command(study.manifest.data.path, choice.tied, _flags(study, args))}")
    return {
        "study": study.name,
        "score_deviation": choice.deviation,
        "tied": choice.tied,
        "probability": choice.probability,
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
                "tied": index < choice.tied_candidates,
                "command": _command(study, r, args),
            }
            for index, r in enumerate(front)
        ],
    }


def limits_of(args: Namespace) -> list[Callable[[TrialRecord], bool]]:
    """The given limits, each as a test of a completed trial.

    Raises:
        UserError: one is not a number, or out of range.
    """

    def at_most(metric: str, limit: float) -> Callable[[TrialRecord], bool]:
        return lambda r: (cost := getattr(r.cost, metric)) is not None and cost <= limit

    def ap_at_least(level: str, limit: float) -> Callable[[TrialRecord], bool]:
        return lambda r: ap_of(r)[level] >= limit

    tests = []
    for key, metric in (("macs", "macs"), ("params", "params"), ("latency", "latency_ms")):
        text = getattr(args, f"max_{key}")
        if text is not None:
            tests.append(at_most(metric, cli.quantity(text, f"--max-{key}")))
    for level in LEVELS:
        text = getattr(args, f"min_ap_{level}")
        if text is not None:
            limit = cli.quantity(text, f"--min-ap-{level}")
            if limit > 1:
                raise UserError(f"--min-ap-{level} {text}: must be in [0, 1], such as 0.6")
            tests.append(ap_at_least(level, limit))
    return tests


def _limit_flags(args: Namespace) -> str:
    keys = ("max_macs", "max_params", "max_latency", *(f"min_ap_{level}" for level in LEVELS))
    return " ".join(
        f"--{key.replace('_', '-')} {getattr(args, key)}"
        for key in keys
        if getattr(args, key) is not None
    )


def _nearest(study: StudyData, args: Namespace) -> str:
    """The best that the study offers for each limit."""
    completed = study.completed
    parts = [
        f"the fewest MACs are {min(r.cost.macs for r in completed) / 1e9:.3f} G, the fewest "
        f"parameters {min(r.cost.params for r in completed):,}"
    ]
    if args.max_latency is not None:
        fastest = min(r.cost.latency_ms for r in completed if r.cost.latency_ms is not None)
        parts.append(f"the shortest latency {fastest:.1f} ms")
    parts += [
        f"the highest {level} AP is {max(ap_of(r)[level] for r in completed):.3f}"
        for level in LEVELS
        if getattr(args, f"min_ap_{level}") is not None
    ]
    return ", ".join(parts)


def _print_table(study: StudyData, choice: Choice, args: Namespace) -> None:
    limits, front, deviation = _limit_flags(args), choice.candidates, choice.deviation
    spread = f" ±{deviation:.3f}" if deviation is not None else ""
    models = [study.retrained.get(r.number) for r in front]
    scores = [model.metrics.score if model else None for model in models]
    print_table(
        f"{study.name}: {counted(len(front), 'candidate')}"
        + (f" within {limits}" if limits else "")
        + f", the front of {counted(len(study.completed), 'completed trial')}",
        names=[
            name_of(r) + (" =" if index < choice.tied_candidates else "")
            for index, r in enumerate(front)
        ],
        designs=[describe(r.detector) for r in front],
        columns={
            "score": [f"{r.score:.3f}{spread}" for r in front],
            **ap_columns(front),
            **cost_columns(front),
            "retrained": ["–" if score is None else f"{score:.3f}" for score in scores],
        },
    )


def _command(study: StudyData, record: TrialRecord, args: Namespace) -> str:
    flags = {"trial": record.number, **_flags(study, args)}
    return retrain_command(study.manifest.data.path, flags)


def _flags(study: StudyData, args: Namespace) -> dict[str, object]:
    return {"study": study.name, "runs_dir": args.runs_dir}


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
