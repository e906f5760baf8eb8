"""python -m nas.search: sample designs, train proxies, keep the front."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from detector.errors import UserError
from nas import cli
from nas.samplers import SAMPLERS
from nas.tracked import tracked_search
from nas.versions import versions

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
    search.add_argument("--space", metavar="FILE", type=Path, required=True,
                        help="the search space, such as search_spaces/retina.yaml")
    search.add_argument("--trials", metavar="N", type=int, default=None,
                        help="different, legal designs to draw; the baseline comes on top "
                             f"(default: {TRIALS}, or with --resume what the study was begun with)")
    search.add_argument("--resume", action="store_true",
                        help="go on with a study (a larger --trials extends a finished one); one "
                             "that does not exist yet is started")
    search.add_argument("--sampler", choices=SAMPLERS, default=None,
                        help="who proposes designs: tpe, nsga2 and gp are Optuna's; frugal models "
                             "accuracy alone, as cost is exact; random is chance (default: tpe)")
    search.add_argument("--scheduler", choices=("halving", "none"), default=None,
                        help="halving pauses trials at rungs and promotes the best; none trains "
                             "all of them in full (default: halving)")
    search.add_argument("--dry-run", action="store_true",
                        help="only show the first designs, their cost and the time it would take")
    cli.add_data_flags(made)
    machine = made.add_argument_group("machine")
    cli.add_device_flag(machine)
    machine.add_argument("--concurrency", metavar="N", type=int, default=None,
                         help="trials trained at once (default: one a GPU, else one a core)")
    machine.add_argument("--cpus-per-trial", metavar="N", type=int, default=1,
                         help="cores, and so torch threads, of each trial (default: 1)")
    machine.add_argument("--gpus-per-trial", metavar="SHARE", type=float, default=None,
                         help="of a GPU, fractions too (default: 1 with a GPU, else 0)")
    return made


def run(args: Namespace) -> dict | None:
    """Search as told on the command line; returns what --json writes."""
    from nas.space import SearchSpace

    space = SearchSpace.load(args.space)
    if args.trials is not None and args.trials < 1:
        raise UserError(f"--trials {args.trials}: must be at least 1")
    if space.objective.metric == "latency_ms":
        raise UserError(f"{args.space}: objective.metric latency_ms: a search weighs designs "
                        "before they are built, so by macs or params; latency is for nas.evaluate")
    if args.dry_run:
        from nas.dryrun import dry_run

        return dry_run(space, args)
    shares = resources(args)
    study, data = _open_study(args, space)
    with study.writing(), tracked_search(args.tracking_uri, study.folder) as tracker:
        return _search(args, study, space.on(data), data, tracker, *shares)


def _search(args: Namespace, study, space, data, tracker, concurrency: int, gpus: float) -> dict:
    from nas.driver import Driver
    from nas.watch import LiveLine

    manifest = study.manifest
    trials = args.trials or manifest["trials"]
    rungs = space.rungs if manifest["scheduler"] == "halving" else space.rungs[-1:]
    driver = Driver(study, space, tracker, trials=trials,
                    sampler=manifest["sampler"], seed=manifest["seed"], rungs=rungs,
                    caches=_caches(study, space, data), device=args.device,
                    threads=args.cpus_per_trial)
    driver.view.tell_all()  # what a search that was killed did not tell any more
    if not driver.finished():
        driver.reopen()
    if not driver.finished():
        live = LiveLine(driver)
        from trials.ray_trainable import run_on_ray

        try:
            run_on_ray(driver, concurrency=concurrency, cpus_per_trial=args.cpus_per_trial,
                       gpus_per_trial=gpus, tick=live.tick)
        except KeyboardInterrupt:
            live.close()
            print(f"stopped; nothing is lost. Go on with:\n  {_again(args, study, trials)}")
            raise
        finally:
            live.close()
        if driver.failure():
            raise driver.failure()
        if not driver.finished():
            raise UserError(f"study {study.name}: Ray ended before the search did; nothing is "
                            f"lost, go on with {_again(args, study, trials)}")
        driver.close()
    if driver.exhausted:
        print(f"note: {driver.exhausted}")
    from nas.summary import summarise

    return summarise(study, driver.view)


def _open_study(args: Namespace, space):
    """The study to work on, and its images. New ones are made only when all is known to be well."""
    from detector.data import open_data, resolve_data
    from nas.disk import check_disk
    from nas.gate import check
    from nas.store import Study, already_there, new_name, newest

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
        from detector.recipe import DataChoice

        choice = DataChoice.from_dict(study.manifest["data"])
    data = open_data(choice)
    for warning in data.warnings:
        print(f"note: {warning}")
    if not data.has_landmarks:
        print("note: these images have no landmarks, so the landmark loss is zero")
    if choice.select_on == "val":
        print("note: designs are compared on the val images themselves (--select-on val); "
              "their AP there is no longer an honest estimate")
    if exists:
        known = study.manifest["data_fingerprint"]
        if known != data.fingerprint:
            raise UserError(f"study {name} was made with other images (fingerprint {known}, now "
                            f"{data.fingerprint}); give the same --data, --fraction and --holdout, "
                            "or start a new study")
        print(check_disk(study.folder, space, args.trials or study.manifest["trials"]))
        return study, data
    check(space)
    print(check_disk(args.runs_dir / name, space, args.trials or TRIALS))
    manifest = {
        "name": name, "space": space.name, "created": time.time(), "trials": args.trials or TRIALS,
        "seed": args.seed, "sampler": args.sampler or "tpe",
        "scheduler": args.scheduler or "halving", "space_hash": _hash(args.space),
        "space_text": args.space.read_text(), "data": choice.to_dict(), "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "images": {"train": len(data.train), "holdout": len(data.holdout), "val": len(data.val)},
        "objective": space.objective.to_dict(), "versions": versions()}
    study = Study.create(args.runs_dir, name, manifest)
    cli.write_text(study.folder / "space.yaml", manifest["space_text"])
    return study, data


def _check_same(args: Namespace, study, space) -> None:
    """A study goes on only as it was begun."""
    manifest = study.manifest
    if manifest["space_hash"] != _hash(args.space):
        import difflib

        before, now = manifest["space_text"].splitlines(), args.space.read_text().splitlines()
        changed = [line for line in difflib.unified_diff(before, now, lineterm="", n=0)
                   if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        raise UserError(f"study {study.name} was made with another {space.name} space; the first "
                        f"differences: {' | '.join(changed[:3]) or 'white space'}; undo them, or "
                        "start a new study")
    for key in ("sampler", "scheduler"):
        given = getattr(args, key)
        if given is not None and given != manifest[key]:
            raise UserError(f"study {study.name} was begun with --{key} {manifest[key]}; leave "
                            "the flag out, or start a new study")


def _caches(study, space, data):
    """The decoded images that all trials share; made once for a study."""
    from detector.data import cache_images
    from nas.driver import Caches

    recipe, made = space.proxy, []
    for images, side in ((data.train, recipe.cache_size), (data.selection, recipe.evaluation.size)):
        cached = cache_images(images, study.folder / "cache", side)
        made.append(cached.folder)
        if cached.skipped:
            print(f"note: {len(cached.skipped)} of {len(images)} images of {images.name} cannot be "
                  f"read and are left out, the first is {cached.skipped[0]}")
    return Caches(train=made[0], holdout=made[1])


def resources(args: Namespace) -> tuple[int, float]:
    """Trials at once, and GPUs for each."""
    import os

    gpus = 0.0
    if args.device != "cpu":
        import torch

        gpus = float(torch.cuda.device_count())
    if args.device == "cuda" and not gpus:
        raise UserError("--device cuda: no CUDA device is seen here; use --device cpu or auto")
    share = args.gpus_per_trial if args.gpus_per_trial is not None else min(gpus, 1.0)
    if share > gpus:
        raise UserError(f"--gpus-per-trial {share:g}: this machine has {gpus:g}; give at most that")
    if args.cpus_per_trial < 1:
        raise UserError(f"--cpus-per-trial {args.cpus_per_trial}: must be at least 1")
    cores = len(os.sched_getaffinity(0))
    default = int(gpus / share) if share else cores // args.cpus_per_trial
    concurrency = args.concurrency if args.concurrency is not None else max(1, default)
    if concurrency < 1:
        raise UserError(f"--concurrency {concurrency}: must be at least 1")
    return concurrency, share


def _again(args: Namespace, study, trials: int) -> str:
    """The command that goes on with this study."""
    flags = [f"--space {args.space}", f"--trials {trials}", f"--study {study.name}", "--resume"]
    if args.runs_dir != Path("runs"):
        flags.append(f"--runs-dir {args.runs_dir}")
    return "python -m nas.search " + " ".join(flags)


def _hash(path: Path) -> str:
    """12 hex digits over what the space says; comments do not count."""
    from detector.yaml_file import read

    text = json.dumps(read(path).data, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
