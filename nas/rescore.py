"""python -m nas.rescore: rank a study by another formula. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from analysis.records.load import load_records
from analysis.records.trial_table import print_table
from analysis.statistics.pareto import front_of, hypervolume_of
from detector.base import cli
from detector.base.errors import ConfigError, UserError
from detector.base.output import counted, print_wrapped
from detector.base.struct import Struct
from detector.base.yaml_file import read
from detector.config.presets import section
from detector.config.shipped import find_file
from nas.search_space.space import has_growth
from trials.folders import add_runs_dir, find_study, read_manifest, study_or_newest
from trials.hints import BUILT_IN_DATA, retrain_command
from trials.names import describe
from trials.objective import Objective
from trials.record import TrialRecord, learned

DESCRIPTION = """\
Rank the completed trials of a study by another formula, without training anything. The study
itself does not change: its own formula guided the search and still decides which trial nas.retrain
--best takes; to retrain another one, use --trial N.

  python -m nas.rescore --study retina-001 --objective params.yaml

where params.yaml has a section objective, as in a search space, optionally with weights:

  objective:
    {metric: params, best: 50e3, worst: 45e6, weights: {accuracy: 2, speed: 1}}

The score is speed × speed_score + accuracy × accuracy_score. The metric is macs, params or
latency_ms; speed_score is 1 at best and 0 at worst. Or the score is an expression:

  objective: {score: 2 * accuracy + 1 - log10(macs / 1e8) / 3}

of accuracy, easy, medium, hard, macs, params and latency_ms (docs/search-spaces.md). Where it has
no growth (from the accuracy of trials to that of full trainings), the study's own remains."""


@dataclass(frozen=True, kw_only=True)
class Weights(Struct):
    accuracy: float = 2.0
    speed: float = 1.0

    def __post_init__(self):
        for key in ("accuracy", "speed"):
            if not getattr(self, key) >= 0:
                raise ConfigError(
                    f"objective.weights.{key}: {getattr(self, key):g} must be at least 0"
                )


@dataclass(frozen=True, kw_only=True)
class Formula(Objective):
    """An objective whose weights for accuracy and speed may differ from the competition's."""

    weights: Weights = field(default_factory=Weights)

    def __post_init__(self):
        super().__post_init__()
        if self.score is not None and self.weights != Weights():
            raise ConfigError(
                "objective.weights: do not go with score, an expression has its own; remove one"
            )

    def __str__(self) -> str:
        if self.score is not None:
            return super().__str__()
        return (
            f"{self.weights.speed:g} × speed + {self.weights.accuracy:g} × accuracy, speed by "
            f"{self.metric} from {self.best:g} (1) to {self.worst:g} (0)"
        )

    def of(self, record: TrialRecord) -> float:
        """The score of a completed trial to which `with_formula` has applied this formula.

        Raises:
            ValueError: it was never evaluated.
        """
        if record.expected_accuracy is None or record.score is None:
            raise ValueError(f"trial {record.number} was never evaluated")
        if self.score is not None:
            return record.score
        accuracy, speed = record.expected_accuracy, record.speed_score
        return self.weights.speed * speed + self.weights.accuracy * accuracy


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.rescore", DESCRIPTION)
    shared = parser.add_argument_group("common to all commands")
    add_runs_dir(shared)
    shared.add_argument("--study", metavar="NAME", help="the study (default: the newest)")
    parser.add_argument(
        "--objective",
        metavar="FILE",
        type=Path,
        required=True,
        help="a YAML file with a section objective; or a search space, of which only that section "
        "is read (without one it scores by MACs): a file, or a shipped one by name",
    )
    parser.add_argument(
        "--top",
        metavar="K",
        type=cli.count,
        default=20,
        help="number of trials to print; --json has all (default: 20)",
    )
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    formula = read_formula(args.objective)
    name = study_or_newest(args.runs_dir, args.study)
    folder = find_study(args.runs_dir, name)
    manifest = read_manifest(folder)
    drawn = manifest.data.path == BUILT_IN_DATA
    if formula.growth is None or not has_growth(drawn, manifest.proxies):
        formula = replace(formula, growth=manifest.objective.growth)
    completed = learned(load_records(folder))
    if not completed:
        raise UserError(
            f"study {name} has no completed trial that has learned anything, so none to rank; "
            "resume the search (--resume)"
        )
    rescored = with_formula(formula, completed, name)
    before = ranking(completed, lambda r: r.score or 0.0)
    after = ranking(rescored, formula.of)
    front = front_of(rescored, formula.metric)
    _print(name, formula, before, after, front, args.top)
    flags = {"study": name, "trial": after[0].number, "runs_dir": args.runs_dir}
    print(f"next:\n  {retrain_command(manifest.data.path, flags)}")
    old = {record.number: record for record in completed}
    old_rank = {record.number: rank for rank, record in enumerate(before, 1)}
    rows = [
        {
            "number": r.number,
            "rank": rank,
            "old_rank": old_rank[r.number],
            "score": formula.of(r),
            "old_score": old[r.number].score,
            "accuracy_score": r.accuracy_score,
            "speed_score": r.speed_score,
            "old_speed_score": old[r.number].speed_score,
            "params": r.cost.params,
            "macs": r.cost.macs,
            "latency_ms": r.cost.latency_ms,
            "design": r.design,
            "describe": describe(r.detector),
        }
        for rank, r in enumerate(after, 1)
    ]
    return {
        "study": name,
        "objective": formula.to_dict(),
        "best": rows[0],
        "trials": rows,
        "front": [r.number for r in front],
        "hypervolume": hypervolume_of(rescored),
    }


def read_formula(path: Path) -> Formula:
    """The section `objective` of a YAML file, which a search space need not have.

    Raises:
        UserError: it cannot be read, has no such section, or breaks a rule.
    """
    document = read(find_file(path, "space"))
    if "objective" not in document.data and "dimensions" not in document.data:
        raise document.error(
            (), "objective: missing key; add it, such as objective: {metric: params}"
        )
    return section(document, "objective", Formula, {})


def with_formula(
    formula: Objective, records: Sequence[TrialRecord], study: str
) -> list[TrialRecord]:
    """The records, scored by another formula.

    Raises:
        UserError: a quantity that it needs was not measured.
    """
    unmeasured = [r.number for r in records if formula.unmeasured(r.cost)]
    if unmeasured:
        raise UserError(
            f"study {study} measured no latency_ms for {len(unmeasured)} of its "
            f"{len(records)} completed trials (the first is {unmeasured[0]}); rank by "
            "macs or params, or measure a retrained model with python -m nas.evaluate"
        )
    return [formula.applied_to(r) for r in records]


def ranking(
    records: Sequence[TrialRecord], score: Callable[[TrialRecord], float]
) -> list[TrialRecord]:
    """Best first; equal scores by number."""
    return sorted(records, key=lambda r: (-score(r), r.number))


def _print(
    name: str,
    formula: Formula,
    before: Sequence[TrialRecord],
    after: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    top: int,
) -> None:
    shown = after[:top]
    old = {r.number: (rank, r.score) for rank, r in enumerate(before, 1)}
    on_front = {r.number for r in front}
    print_table(
        f"{name}: {counted(len(after), 'completed trial')} by {formula}",
        names=[f"{r.number}{' *' if r.number in on_front else ''}" for r in shown],
        designs=[describe(r.detector) for r in shown],
        columns={
            "rank": [str(rank) for rank, _ in enumerate(shown, 1)],
            "before": [str(old[r.number][0]) for r in shown],
            "score": [f"{formula.of(r):.3f}" for r in shown],
            "before ": [f"{old[r.number][1]:.3f}" for r in shown],
            "accuracy": [f"{r.accuracy_score:.3f}" for r in shown],
            "speed": [f"{r.speed_score:.3f}" for r in shown],
            formula.metric: [f"{getattr(r.cost, formula.metric):,}" for r in shown],
        },
    )
    if len(after) > top:
        print(f"({len(after) - top} more: use --top or --json)")
    if formula.growth_note:
        print_wrapped(formula.growth_note)
    best = after[0]
    change = "as before" if best.number == before[0].number else f"before: trial {before[0].number}"
    print(f"* on the Pareto front of accuracy and speed, which has {counted(len(front), 'trial')}")
    print_wrapped(
        f"best: trial {best.number} ({describe(best.detector)}), {change}; the study is unchanged"
    )


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
