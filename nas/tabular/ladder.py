"""The ladder: some designs of a study trained in full, to measure how well its proxies rank.

The designs are spread over cost, accuracy and family. Each is retrained as by nas.retrain, and
evaluated on the val images besides, which no search has chosen by.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.statistics.correlation import fit_line
from analysis.statistics.ladder import (
    Bias,
    Look,
    MeasuredGrowth,
    Rungs,
    bias,
    family_bias,
    growth,
    looks,
    spread,
)
from detector.base.errors import ConfigError, UserError, first_line
from detector.base.files import cannot_read, write_text
from detector.base.json_file import read_json
from detector.base.plugins import load_plugins, loaded_plugins
from detector.base.struct import Struct
from detector.config.detector import Detector
from nas.retraining.options import RetrainOptions
from nas.study.recorded_table import text_by_rows
from trials.names import describe
from trials.objective import Objective
from trials.record import Cost, Status, TrialRecord, mean_ap

MIN_DESIGNS = 4
"""With fewer there is nothing to rank."""
FOLDER = "ladder"
"""Of a study, for the ladder's models: they are not those that a user retrains."""
_TRAIN_AGAIN = "make it again by python -m nas.ladder, which keeps finished trainings"


@dataclass(frozen=True, kw_only=True)
class Rung(Struct):
    """One design, trained in full."""

    params: dict
    """Its parameters in the space; empty for the baseline."""
    design: str
    """`arch_hash` of the detector, by which other studies' trials are found."""
    describe: str
    family: str
    """As `family_of`."""
    cost: Cost
    ap: dict
    """easy, medium and hard AP in [0, 1] on the hold-out, at original image size."""
    val_ap: dict | None = None
    """The same on the val images; None if the data has none."""
    seconds: float
    """Duration of the training."""


@dataclass(frozen=True, kw_only=True)
class Ladder(Struct):
    """Designs trained in full, as stored in JSON."""

    made: dict
    """How the numbers were made: command, recipe, images, versions."""
    rows: tuple[Rung, ...]

    @classmethod
    def load(cls, path: Path) -> Ladder:
        """A recorded ladder.

        Raises:
            UserError: this is not a ladder.
        """
        try:
            return cls.from_dict(read_json(path), str(path))
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: no such file; python -m nas.ladder --study STUDY trains a ladder"
            ) from error
        except OSError as error:
            raise cannot_read(path, error, _TRAIN_AGAIN) from error
        except (ValueError, ConfigError) as error:
            raise UserError(
                f"{path}: not a ladder ({first_line(error)}); {_TRAIN_AGAIN}"
            ) from error


def family_of(detector: Detector) -> str:
    """Backbone and kind of head, such as "resnet sigmoid"."""
    return f"{detector.backbone.kind} {detector.head.score}"


def choose_designs(records: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """`count` completed trials spread over MACs, accuracy and family, the baseline first.

    Raises:
        UserError: there are too few completed trials.
    """
    completed = [r for r in records if r.status is Status.COMPLETED]
    if not MIN_DESIGNS <= count <= len(completed):
        raise UserError(
            f"--designs {count}: the study has {len(completed)} completed trials; give a number "
            f"from {MIN_DESIGNS} to that, or train more (nas.search --resume)"
        )
    chosen = spread(
        np.array([r.cost.macs for r in completed], float),
        np.array([r.accuracy_score for r in completed], float),
        [family_of(r.detector) for r in completed],
        count,
    )
    return [completed[index] for index in chosen]


def train(records: Sequence[TrialRecord], options: RetrainOptions, jobs: int) -> Iterator[Rung]:
    """Retrains the trials, as they finish; those that are finished already are not repeated.

    Each one's output is written to a file beside its folder in `FOLDER`.

    Args:
        jobs: how many are trained at the same time, each on its share of the cores.
    """
    import multiprocessing

    tasks = [(r, replace(options, trial=r.number, resume=True), jobs) for r in records]
    if jobs == 1:
        yield from map(_train, tasks)
        return
    plugins = [str(plugin.path) for plugin in loaded_plugins()]
    with multiprocessing.get_context("spawn").Pool(jobs, load_plugins, (plugins,)) as pool:
        yield from pool.imap_unordered(_train, tasks)


def _train(task: tuple[TrialRecord, RetrainOptions, int]) -> Rung:
    record, options, jobs = task
    import torch

    from detector.config.recipe import Evaluation
    from detector.data.open import open_data
    from detector.inference.predict import evaluate
    from detector.training.fit import choose_device
    from nas.models.model_folder import WEIGHTS, load_model
    from nas.retraining.candidate import choose_candidate
    from nas.retraining.retrain import retrain

    if jobs > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    candidate = choose_candidate(options)
    folder = candidate.folder.parents[1] / FOLDER / candidate.folder.name
    candidate = replace(candidate, folder=folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        metrics = retrain(candidate, options)
        model = load_model(folder / WEIGHTS)
        val = open_data(metrics.origin.data).val
        val_ap = (
            evaluate(model.net, model.config, val, Evaluation(), choose_device(options.device))
            if len(val)
            else None
        )
    assert metrics.ap is not None
    return Rung(
        params=record.params,
        design=metrics.design,
        describe=describe(record.detector),
        family=family_of(record.detector),
        cost=Cost(params=record.cost.params, macs=record.cost.macs),
        ap=_rounded(metrics.ap),
        val_ap=val_ap and _rounded(val_ap),
        seconds=metrics.seconds,
    )


def _rounded(ap: dict[str, float]) -> dict[str, float]:
    return {level: round(value, 5) for level, value in ap.items()}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How well a study's proxies rank the designs of a ladder."""

    designs: int
    """Designs of the ladder that the study trained."""
    judged_on: str
    """val or hold-out: the images that the full trainings are compared on."""
    looks: list[Look]
    bias: Bias | None
    growth: MeasuredGrowth | None
    families: dict[str, float]
    """As `analysis.statistics.ladder.family_bias`."""
    deviation_at_end: float
    """Standard deviation of the full training's accuracy about a line through the proxy's."""


def judge(ladder: Ladder, records: Sequence[TrialRecord], objective: Objective) -> Verdict:
    """Compares a study's proxies with the ladder's full trainings of the same designs.

    Full trainings are compared on val where the data has it: the proxies were chosen on the
    hold-out. Of several trials of one design the one trained longest counts.

    Raises:
        UserError: the study trained fewer than MIN_DESIGNS of the ladder's designs in full.
    """
    longest = max((len(r.epochs) for r in records), default=0)
    by_design = {
        r.design: r
        for r in sorted(records, key=lambda r: len(r.epochs))
        if len(r.epochs) == longest and r.status is Status.COMPLETED
    }
    pairs = [(row, by_design[row.design]) for row in ladder.rows if row.design in by_design]
    if len(pairs) < MIN_DESIGNS:
        raise UserError(
            f"the study has completed {len(pairs)} of the ladder's {len(ladder.rows)} designs; at "
            f"least {MIN_DESIGNS} are needed"
        )
    epochs = sorted(
        set.intersection(*({e.epoch for e in record.epochs if e.ap} for _, record in pairs))
    )
    on_val = all(row.val_ap for row, _ in pairs)
    full_ap = [(row.val_ap if on_val else row.ap) or {} for row, _ in pairs]
    scored = [objective.applied_to(record) for _, record in pairs]
    rungs = Rungs(
        looks=tuple(epochs),
        proxy=np.array(
            [[mean_ap(e.ap) for e in r.epochs if e.epoch in epochs and e.ap] for _, r in pairs]
        ),
        full=np.array([mean_ap(ap) for ap in full_ap]),
        proxy_scores=np.array([[r.scores()[epoch] for epoch in epochs] for r in scored]),
        full_scores=np.array([r.without_growth.score_at(ap) for r, ap in zip(scored, full_ap)]),
        macs=np.array([row.cost.macs for row, _ in pairs], float),
        families=tuple(row.family for row, _ in pairs),
    )
    return Verdict(
        designs=len(pairs),
        judged_on="val" if on_val else "hold-out",
        looks=looks(rungs),
        bias=bias(rungs),
        growth=growth(rungs),
        families=family_bias(rungs),
        deviation_at_end=fit_line(rungs.proxy[:, -1], rungs.full)[2],
    )


def print_verdict(verdict: Verdict, may_grow: bool) -> None:
    """The verdict as a table of at most 80 columns, and its bias in words."""

    def interval(tau) -> str:
        return f"{tau.value:5.2f} ({tau.low:5.2f} to {tau.high:4.2f})"

    print(
        f"\n{verdict.designs} designs, full trainings compared on {verdict.judged_on}; Kendall's "
        "τ of the proxy\nwith the full training, 95 % interval over the designs:\n"
    )
    print(f"{'epoch':>7}  {'accuracy':^20}  {'score':^20}  within families")
    for look in verdict.looks:
        print(
            f"{look.epoch:7d}  {interval(look.accuracy)}  {interval(look.score)}  "
            f"{look.within:6.2f}"
        )
    print(
        f"\nAt the end the full accuracy varies by ±{verdict.deviation_at_end:.3f} about what the "
        "proxy's predicts."
    )
    if verdict.families:
        print("Mean of the difference in each family:")
    for name, value in verdict.families.items():
        print(f"  {name}: {value:+.3f}")
    if verdict.bias is None or verdict.growth is None:
        print("The designs' MACs are too much alike to say what the proxy gets wrong by cost.")
        return
    error, line = verdict.bias, verdict.growth
    direction = "large" if error.per_decade > 0 else "small"
    sure = error.low > 0 or error.high < 0
    print(
        f"The proxy wrongs {direction} designs by "
        f"{abs(error.per_decade):.3f} of accuracy per factor 10 of MACs"
        f"\n({error.low:+.3f} to {error.high:+.3f}"
        f"{'' if sure else '; may be none'})."
    )
    print(
        "To rank trials by what full trainings are expected to reach, give the space"
        if may_grow
        else "Full trainings add to what the proxies reach (a space's objective has growth for\n"
        "short proxies of photographs only)"
    )
    print(
        f"  objective: {{growth: {{base: {line.base:.2f}, per_decade: {line.per_decade:.2f}}}}}\n"
        f"{'beside its other keys ' if may_grow else ''}"
        f"(standard error of per_decade {line.error:.2f})."
    )


def save(path: Path, made: dict, rungs: Sequence[Rung]) -> None:
    """Writes the ladder, cheapest design first."""
    rows = tuple(sorted(rungs, key=lambda rung: rung.cost.macs))
    write_text(path, text_by_rows(Ladder(made=made, rows=rows)))


def progress(done: int, total: int, rung: Rung) -> None:
    print(
        f"[{done} of {total}] mean AP {mean_ap(rung.val_ap or rung.ap):.4f}, "
        f"{rung.seconds / 60:.1f} min: {rung.describe}",
        file=sys.stderr,
        flush=True,
    )
