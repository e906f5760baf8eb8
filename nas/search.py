"""python -m nas.search: samples designs, trains proxies, keeps the Pareto front."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from nas.engine.enqueued import add_queue_flags
from nas.engine.open_study import DEFAULT_TRIALS
from nas.engine.options import SearchOptions
from nas.samplers.proposer import SAMPLERS, sampler_help
from nas.terminal import cli
from trials.compute.resources import (
    MAX_CPUS_PER_TRIAL,
    MAX_TRIALS_PER_GPU,
    TRIAL_GPU_GB,
)
from trials.hints import given_flags

DESCRIPTION = """\
Search a space of detectors. Designs are sampled; those whose exact cost violates a constraint are
rejected before any training. The others are trained as short proxies and compared at rungs; the
most promising ones get the full proxy budget. The score is speed_score + 2 × accuracy_score, or the
expression under `objective` in the space.

  python -m nas.search --space search_spaces/retina.yaml --trials 200
  python -m nas.search --space search_spaces/retina.yaml --trials 200 --resume

Without --study, a new study is created, named after the space with a number (retina-001); with
--resume, the newest study of the space is resumed. After Ctrl-C nothing is lost."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.search", DESCRIPTION)
    search = parser.add_argument_group("search")
    search.add_argument(
        "--space",
        metavar="FILE",
        type=Path,
        required=True,
        help="the search space: a file, or a shipped one by name (retina is "
        "search_spaces/retina.yaml)",
    )
    cli.add_budget_flag(search)
    search.add_argument(
        "--trials",
        metavar="N",
        type=int,
        default=None,
        help="number of different, feasible designs to try, besides the baseline "
        f"(default: {DEFAULT_TRIALS}, or with --resume what the study was started with)",
    )
    search.add_argument(
        "--resume",
        action="store_true",
        help="resume a study (a larger --trials extends a finished one); start it if it does "
        "not exist yet",
    )
    search.add_argument(
        "--sampler",
        choices=SAMPLERS,
        default=None,
        help=sampler_help(),
    )
    search.add_argument(
        "--scheduler",
        choices=("halving", "none"),
        default=None,
        help="halving pauses trials at rungs and promotes the best; none trains all of them "
        "for the full proxy budget (default: halving)",
    )
    search.add_argument(
        "--proxies",
        choices=("auto", "short", "long"),
        default="auto",
        help="short ones take a core a minute or two, but favour designs that learn fast; long "
        "ones (proxy_long in the space) are close to full trainings and made for GPUs (default: "
        "auto, long where trials train on GPUs and the space has them for these images)",
    )
    search.add_argument(
        "--max-failures",
        metavar="SHARE",
        type=float,
        default=None,
        help="stop if more than this share of the trials have failed, after at least five "
        "trials; the traceback of a failed trial is in its log, "
        "RUNS_DIR/STUDY/trials/NUMBER/log.txt (default: 0.5)",
    )
    search.add_argument(
        "--no-prior",
        action="store_true",
        help="start without what earlier studies in RUNS_DIR, and tables that come with this "
        "project, say about designs. A sampler that uses them (joint) learns how far they "
        "hold for this search; only those of the same kind of images and of proxies (short or "
        "long) count",
    )
    search.add_argument(
        "--inherit",
        action="store_true",
        help="a trial starts from the overlapping weights of the most similar design of this "
        "study that has reached a rung; the first trials and the baseline start from scratch, "
        "so their learning curves are not comparable with those of the others",
    )
    search.add_argument(
        "--rounds",
        metavar="N",
        type=int,
        default=1,
        help="2 or more: after the proxies, the most promising designs are trained longer and on "
        "larger crops from round to round; the last round has full trainings, of 3 designs and "
        "the baseline, and the best one on the hold-out is kept as by nas.retrain (default: 1)",
    )
    search.add_argument(
        "--full-recipe",
        metavar="FILE",
        help="with --rounds: a YAML file with changes to the recipe of those trainings, or a "
        "shipped one by name (default: as nas.retrain)",
    )
    search.add_argument(
        "--dry-run",
        action="store_true",
        help="only show the first designs, their cost and the estimated time of the search",
    )
    add_queue_flags(parser)
    cli.add_data_flags(parser)
    machine = parser.add_argument_group("machines")
    cli.add_device_flag(machine)
    machine.add_argument(
        "--address",
        metavar="ADDR",
        default=os.environ.get("RAY_ADDRESS"),
        type=lambda text: None if text in ("", "local") else text,
        help="train on the Ray cluster that this machine belongs to: auto, or HOST:PORT of "
        "its head node. All nodes must see --runs-dir, which holds the study with its caches "
        "and checkpoints, under the same path; only this command writes to the study's "
        "database. The nodes need the same Python environment; this project's code is sent to "
        "them (default: RAY_ADDRESS if it is set, else a Ray instance on this machine)",
    )
    machine.add_argument(
        "--concurrency",
        metavar="N",
        type=int,
        default=None,
        help="trials trained at the same time (default: as many as the GPU shares and cores "
        "allow; with metric latency_ms, one core is reserved for measuring it)",
    )
    machine.add_argument(
        "--cpus-per-trial",
        metavar="N",
        type=int,
        default=None,
        help="cores, and thus torch threads, of each trial (default: 1; on GPUs its share of "
        f"the cores, at most {MAX_CPUS_PER_TRIAL})",
    )
    machine.add_argument(
        "--gpus-per-trial",
        metavar="SHARE",
        type=float,
        default=None,
        help="GPUs of each trial, which may be a fraction: 1 gives each trial a GPU of its "
        "own, 0 trains on the CPU (default: as many trials share a GPU as there are cores and "
        f"{TRIAL_GPU_GB:g} GB of its memory for, at most {MAX_TRIALS_PER_GPU}; with metric "
        "latency_ms 1, or 0.5 if there is only one GPU)",
    )
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    from nas.rounds.search_in_rounds import search_in_rounds

    options = SearchOptions.of(args, given_flags(make_parser(), args))
    return search_in_rounds(options, dry_run=args.dry_run)


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
