"""python -m nas.search: sample designs, train proxies, keep the front."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import write_text
from nas.engine.enqueued import Queue, add_queue_flags, check_same, manifest_of, read_queue
from nas.samplers.proposer import DEFAULT, SAMPLERS
from nas.search_space.mac_budget import Budget
from nas.study.versions import versions
from nas.terminal import cli
from nas.tracking.runs import tracked_search
from trials.compute.resources import (
    MOST_CPUS,
    MOST_PER_GPU,
    TRIAL_GPU_GB,
    Node,
    Shares,
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

TRIALS = 50


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
        help="who proposes designs: tpe, nsga2 and gp are Optuna's; frugal models "
        "accuracy alone, as cost is exact; random is chance "
        f"(default: {DEFAULT})",
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
        f"its share of the cores, at most {MOST_CPUS})",
    )
    machine.add_argument(
        "--gpus-per-trial",
        metavar="SHARE",
        type=float,
        default=None,
        help="of a GPU, fractions too; 1 gives each trial one of its own, 0 "
        "trains on the CPU (default: as many trials share a GPU as there are "
        f"cores and {TRIAL_GPU_GB:g} GB of its memory for, at most "
        f"{MOST_PER_GPU}; with metric latency_ms 1, or 0.5 where there is "
        "one GPU alone)",
    )
    return made


def run(args: Namespace) -> dict | None:
    """Search as told on the command line; returns what --json writes."""
    space = cli.load_space(args)
    if args.trials is not None and args.trials < 1:
        raise UserError(f"--trials {args.trials}: must be at least 1")
    if args.max_failures is not None and not 0 <= args.max_failures <= 1:
        raise UserError(f"--max-failures {args.max_failures:g}: must be between 0 and 1")
    from nas.engine.disk_space import told_when_full

    with ExitStack() as open_ones:
        nodes = open_ones.enter_context(_machines(args))
        shares = shares_of(
            nodes,
            device=args.device,
            cpus=args.cpus_per_trial,
            gpus=args.gpus_per_trial,
            concurrency=args.concurrency,
            stopwatch=space.measures_latency,
        )
        if args.dry_run:
            from nas.engine.dry_run import dry_run

            return dry_run(space, args, shares, trials=args.trials or TRIALS)
        study, data = _open_study(args, space)
        open_ones.enter_context(study.writing())
        again = _again(args, study, args.trials or study.manifest["trials"])
        open_ones.enter_context(told_when_full(study.folder, again))
        ready = open_ones.enter_context(_ray_on_its_way(args, shares))
        tracker = open_ones.enter_context(tracked_search(args.tracking_uri, study.folder))
        return _search(args, study, space.on(data), data, tracker, shares, ready)


def _search(
    args: Namespace, study, space, data, tracker, shares: Shares, ready: Callable[[], None]
) -> dict:
    """Search until nothing is left to train; returns what --json writes.

    Args:
        ready: waits for the Ray that is on its way.
    """
    from nas.engine.driver import MAX_FAILURES, Driver
    from nas.engine.live_line import LiveLine
    from nas.engine.warm_start import WarmStart
    from nas.study.summary import summarise

    manifest = study.manifest
    trials = args.trials or manifest["trials"]
    rungs = space.rungs if manifest["scheduler"] == "halving" else space.rungs[-1:]
    stopwatch = _stopwatch(study, space)
    driver = Driver(
        study,
        space,
        tracker,
        trials=trials,
        sampler=manifest["sampler"],
        seed=manifest["seed"],
        rungs=rungs,
        caches=_caches(study, space, data),
        device=shares.device,
        threads=shares.cpus,
        stopwatch=stopwatch,
        max_failures=MAX_FAILURES if args.max_failures is None else args.max_failures,
        warm=WarmStart(
            space,
            study.folder,
            rungs,
            Queue.of(study.folder, manifest),
            inherits=manifest.get("inherit", False),
        ),
    )
    driver.view.tell_all()  # what a search that was killed did not tell any more
    if manifest.get("inherit"):
        print(
            "note: trials inherit weights where a neighbour is trained; the baseline starts from "
            "scratch, so the epochs of the two are not worth the same"
        )
    if not driver.finished() and driver.failure() is None:
        driver.reopen()
        from trials.compute.trainable import run_on_ray

        ready()
        if args.address:
            from trials.compute.cluster import check_nodes

            check_nodes([study.folder])
        live = LiveLine(driver)

        def tick() -> None:
            driver.check()
            live.tick()

        try:
            run_on_ray(
                driver,
                shares,
                scratch=study.folder if args.address else None,
                stopwatch=stopwatch,
                tick=tick,
            )
        except KeyboardInterrupt:
            live.close()
            print(f"stopped; nothing is lost. Go on with:\n  {_again(args, study, trials)}")
            raise
        finally:
            live.close()
        if not driver.finished() and driver.failure() is None:
            raise UserError(
                f"study {study.name}: Ray ended before the search did; nothing is "
                f"lost, go on with {_again(args, study, trials)}"
            )
    if stopped := driver.failure():
        if not driver.completed():
            raise stopped
        raise cli.Partly(str(stopped), summarise(study, driver.view))
    driver.close()
    if driver.exhausted:
        print(f"note: {driver.exhausted}")
    return summarise(study, driver.view)


def _open_study(args: Namespace, space):
    """The study to work on, and its images. New ones are made only when all is known to be well."""
    from detector.data.open import open_data, resolve_data
    from detector.data.prepare import room_for
    from nas.engine.disk_space import check_disk
    from nas.engine.gate import check
    from nas.study.storage import Study, already_there, new_name, newest

    name = args.study
    if name is None:
        name = newest(args.runs_dir, space.name) if args.resume else None
        name = name or new_name(args.runs_dir, space.name)
    exists = (args.runs_dir / name / "study.json").exists()
    if exists and not args.resume:
        raise already_there(args.runs_dir, name)
    if exists:
        study = Study.open(args.runs_dir, name)
        _check_same(args, study, space)
        path, line = resolve_data(args.data or study.manifest["data"]["path"])
    else:
        path, line = resolve_data(args.data)
    print(f"study {name}: {line}")
    choice = cli.data_choice(args, path)
    if exists and args.data is None:
        from detector.config.recipe import DataChoice

        choice = DataChoice.from_dict(study.manifest["data"])
    data = open_data(choice)
    for warning in data.warnings:
        print(f"note: {warning}")
    if not data.has_landmarks:
        print("note: these images have no landmarks, so the landmark loss is zero")
    if choice.select_on == "val":
        print(
            "note: designs are compared on the val images themselves (--select-on val); "
            "their AP there is no longer an honest estimate"
        )
    if exists:
        known = study.manifest["data_fingerprint"]
        if known != data.fingerprint:
            raise UserError(
                f"study {name} was made with other images (fingerprint {known}, now "
                f"{data.fingerprint}); give the same --data, --fraction and --holdout, "
                "or start a new study"
            )
        print(
            check_disk(
                study.folder,
                space,
                args.trials or study.manifest["trials"],
                study.manifest.get("inherit", False),
            )
        )
        return study, data
    check(space)
    if space.proxy.weights:
        from detector.weights.initialize import find_start

        find_start(space.base, space.proxy.weights)  # a missing file is better told now
    queue = read_queue(args, space.on(data), data)
    print(check_disk(args.runs_dir / name, space, args.trials or TRIALS, args.inherit))
    room_for(_parts(space.on(data), data), args.runs_dir / name / "cache").check()
    manifest = {
        "name": name,
        "space": space.name,
        "created": time.time(),
        "trials": args.trials or TRIALS,
        "seed": args.seed,
        "sampler": args.sampler or DEFAULT,
        "scheduler": args.scheduler or "halving",
        "space_hash": _hash(space.path),
        "budget": space.budget.to_dict() if space.budget else None,
        "space_text": space.path.read_text(),
        "data": choice.to_dict(),
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "images": {"train": len(data.train), "holdout": len(data.holdout), "val": len(data.val)},
        "objective": space.objective.to_dict(),
        "versions": versions(),
        "inherit": args.inherit,
    } | manifest_of(args)
    if queue != Queue():
        queue.write(args.runs_dir / name)
    study = Study.create(args.runs_dir, name, manifest)
    write_text(study.folder / "space.yaml", manifest["space_text"])
    return study, data


def _check_same(args: Namespace, study, space) -> None:
    """A study goes on only as it was begun."""
    manifest = study.manifest
    if manifest["space_hash"] != _hash(space.path):
        import difflib

        before, now = manifest["space_text"].splitlines(), space.path.read_text().splitlines()
        changed = [
            line
            for line in difflib.unified_diff(before, now, lineterm="", n=0)
            if line[:1] in "+-" and line[:3] not in ("+++", "---")
        ]
        raise UserError(
            f"study {study.name} was made with another {space.name} space; the first "
            f"differences: {' | '.join(changed[:3]) or 'white space'}; undo them, or "
            "start a new study"
        )
    begun = manifest.get("budget")  # older studies have none
    if begun is not None and Budget.from_dict(begun) != space.budget:
        was = Budget.from_dict(begun)
        raise UserError(
            f"study {study.name} was begun with a budget of {was}, now it is "
            f"{space.budget}; give --budget {was.macs / 1e9:g}G, or start a new study"
        )
    for key in ("sampler", "scheduler"):
        given = getattr(args, key)
        if given is not None and given != manifest[key]:
            raise UserError(
                f"study {study.name} was begun with --{key} {manifest[key]}; leave "
                "the flag out, or start a new study"
            )
    if args.inherit and not manifest.get("inherit", False):
        raise UserError(
            f"study {study.name} was begun without --inherit; leave the flag out, or "
            "start a new study"
        )
    check_same(args, manifest)


def _parts(space, data) -> list:
    """The images that all trials share."""
    from detector.data.prepare import Part

    return [
        Part(data.train, space.proxy.cache_size),
        Part(data.selection, space.proxy.evaluation.size),
    ]


def _caches(study, space, data):
    """Those images decoded; made once for a study."""
    from nas.engine.disk_space import prepare_images
    from nas.engine.driver import Caches

    train, holdout = prepare_images(_parts(space, data), study.folder / "cache", shared=True)
    return Caches(train=train.folder, holdout=holdout.folder)


def _machines(args: Namespace) -> AbstractContextManager[list[Node]]:
    """What trains: the nodes of a cluster while it is connected, or this machine."""
    if args.address:
        from trials.compute.cluster import connected

        return connected(args.address)
    return nullcontext([this_machine(args.device)])


def _ray_on_its_way(args: Namespace, shares: Shares) -> AbstractContextManager:
    """Starts a Ray while the rest is got ready; not where maybe nothing is left to train."""
    if args.resume:
        return nullcontext(lambda: None)
    import trials.compute.trainable  # noqa: F401  (whole, before two threads import parts of Ray)
    from trials.compute.cluster import soon_running

    return soon_running(shares)


def _stopwatch(study, space):
    """Who measures latency, where the space asks for that; the baseline is the yardstick."""
    if not space.measures_latency:
        return None
    from trials.compute.cluster import Stopwatch

    records = study.records
    return Stopwatch(space.baseline[0], records[0].cost if records else None)


def _again(args: Namespace, study, trials: int) -> str:
    """The command that goes on with this study."""
    flags = [f"--space {args.space}", f"--trials {trials}", f"--study {study.name}", "--resume"]
    if args.budget:
        flags.append(f"--budget {args.budget}")
    if args.max_failures is not None:
        flags.append(f"--max-failures {args.max_failures:g}")
    if args.runs_dir != Path("runs"):
        flags.append(f"--runs-dir {args.runs_dir}")
    if args.address and args.address != os.environ.get("RAY_ADDRESS"):
        flags.append(f"--address {args.address}")
    return "python -m nas.search " + " ".join(flags)


def _hash(path: Path) -> str:
    """12 hex digits over what the space says; comments do not count."""
    from detector.base.yaml_file import read

    text = json.dumps(read(path).data, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
