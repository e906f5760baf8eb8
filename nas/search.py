"""python -m nas.search: sample designs, train proxies, keep the front."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from nas.engine.enqueued import add_queue_flags
from nas.engine.open_study import TRIALS, open_study
from nas.engine.options import SearchOptions
from nas.samplers.proposer import SAMPLERS, sampler_help
from nas.terminal import cli
from nas.tracking.runs import tracked_search
from trials.compute.resources import (
    MAX_CPUS_PER_TRIAL,
    MAX_TRIALS_PER_GPU,
    TRIAL_GPU_GB,
    Node,
    shares_of,
    this_machine,
)

DESCRIPTION = """\
Search a space of detectors. Designs are drawn, those over a cap are set aside by their exact
cost before anything is trained, the others train as short proxies and are compared at rungs;
the most promising ones get the full proxy budget. The score is speed_score + 2 × accuracy_score.

  python -m nas.search --space search_spaces/retina.yaml --trials 200
  python -m nas.search --space search_spaces/retina.yaml --trials 200 --resume

Without --study a new study is made, named after the space with a number (retina-001);
--resume without --study takes the newest study of the space. Ctrl-C keeps everything."""


def make_parser() -> ArgumentParser:
    made = cli.parser("nas.search", DESCRIPTION)
    search = made.add_argument_group("search")
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
        help="different, legal designs to draw; the baseline comes on top "
        f"(default: {TRIALS}, or with --resume what the study was begun with)",
    )
    search.add_argument(
        "--resume",
        action="store_true",
        help="go on with a study (a larger --trials extends a finished one); one "
        "that does not exist yet is started",
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
        help="halving pauses trials at rungs and promotes the best; none trains "
        "all of them in full (default: halving)",
    )
    search.add_argument(
        "--max-failures",
        metavar="SHARE",
        type=float,
        default=None,
        help="stop when more of the trials than this share have failed, from the "
        "fifth trial on; a failed trial's traceback is in its log, "
        "RUNS_DIR/STUDY/trials/NUMBER/log.txt (default: 0.5)",
    )
    search.add_argument(
        "--inherit",
        action="store_true",
        help="a trial starts from the overlapping weights of the nearest design "
        "of this study that is trained, if only to its first rung; the first "
        "ones and the baseline start from scratch, so that their curves are "
        "not comparable with those of heirs",
    )
    search.add_argument(
        "--dry-run",
        action="store_true",
        help="only show the first designs, their cost and the time it would take",
    )
    add_queue_flags(made)
    cli.add_data_flags(made)
    machine = made.add_argument_group("machines")
    cli.add_device_flag(machine)
    machine.add_argument(
        "--address",
        metavar="ADDR",
        default=os.environ.get("RAY_ADDRESS"),
        type=lambda text: None if text in ("", "local") else text,
        help="train on the Ray cluster that this machine is a part of: auto, or "
        "HOST:PORT of its head. The study (and with it caches and "
        "checkpoints) lies in --runs-dir, which all nodes must see under "
        "the same path; only this command writes its storage. The nodes need "
        "the same Python environment; this project's code is sent along "
        "(default: RAY_ADDRESS where it is set, else a Ray of its own, here)",
    )
    machine.add_argument(
        "--concurrency",
        metavar="N",
        type=int,
        default=None,
        help="trials trained at once (default: as many as there are GPU shares "
        "and cores for; with metric latency_ms one core is left for it)",
    )
    machine.add_argument(
        "--cpus-per-trial",
        metavar="N",
        type=int,
        default=None,
        help="cores, and so torch threads, of each trial (default: 1; on GPUs "
        f"its share of the cores, at most {MAX_CPUS_PER_TRIAL})",
    )
    machine.add_argument(
        "--gpus-per-trial",
        metavar="SHARE",
        type=float,
        default=None,
        help="of a GPU, fractions too; 1 gives each trial one of its own, 0 "
        "trains on the CPU (default: as many trials share a GPU as there are "
        f"cores and {TRIAL_GPU_GB:g} GB of its memory for, at most "
        f"{MAX_TRIALS_PER_GPU}; with metric latency_ms 1, or 0.5 where there is "
        "one GPU alone)",
    )
    return made


def run(args: Namespace) -> dict:
    """Search as the command line says; returns what --json writes."""
    space = cli.load_space(args)
    options = SearchOptions.of(args)
    from nas.engine.disk_space import report_disk_full
    from nas.engine.run_search import resume_command, run_search, start_ray

    with ExitStack() as stack:
        shares = shares_of(
            stack.enter_context(_machines(args)),
            device=args.device,
            cpus=args.cpus_per_trial,
            gpus=args.gpus_per_trial,
            concurrency=args.concurrency,
            stopwatch=space.measures_latency,
        )
        if args.dry_run:
            from nas.engine.dry_run import dry_run

            return dry_run(space, options, shares)
        study, data = open_study(options, space)
        stack.enter_context(study.writing())
        trials = options.trials or study.manifest.trials
        resume = resume_command(options, study.name, trials)
        stack.enter_context(report_disk_full(study.folder, resume))
        ray_ready = stack.enter_context(start_ray(options, shares))
        tracker = stack.enter_context(tracked_search(args.tracking_uri, study.folder))
        return run_search(options, study, space.on(data), data, tracker, shares, ray_ready)


def _machines(args: Namespace) -> AbstractContextManager[list[Node]]:
    """What trains: the nodes of a cluster while it is connected, or this machine."""
    if args.address:
        from trials.compute.cluster import connected

        return connected(args.address)
    return nullcontext([this_machine(args.device)])


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
