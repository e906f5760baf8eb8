"""The training of one candidate in full: its folder, its epochs, its result. Light to import."""

from __future__ import annotations

import json
import shutil
import time
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

from detector.base.errors import TrainingError, UserError, out_of_memory
from detector.base.files import write_text
from detector.config.detector import arch_hash
from detector.config.recipe import Recipe
from detector.weights.pretrained import Start
from nas.models.model_folder import Origin, read_metrics
from nas.retraining.candidate import Candidate
from nas.study.versions import versions
from nas.terminal import cli
from trials.record import Cost


def finished(candidate: Candidate, recipe: Recipe, origin: Origin) -> dict | None:
    """metrics.json of the very same retrain, if it has ended."""
    stored = read_metrics(candidate.folder)
    same = stored and (  # what was taken from the weights is known only once training has begun
        stored["origin"] | {"start": None} == origin.to_dict()
        and Recipe.from_dict(stored["recipe"]) == recipe
        and stored["design"] == arch_hash(candidate.config)
    )
    return stored if same else None


def folder(candidate: Candidate, origin: Origin, args: Namespace) -> Path:
    """The folder to train in; with --resume it may hold a training to go on with."""
    workdir = candidate.workdir
    noted = workdir / "origin.json"
    if (workdir / "last.pt").exists():
        if not args.resume:
            raise UserError(
                f"{workdir}: holds a retrain that was stopped; add --resume to go on "
                "with it, or remove the folder"
            )
        if noted.exists() and json.loads(noted.read_text()) != origin.to_dict():
            raise UserError(
                f"{workdir}: holds a retrain of something else (other images, hold-out "
                "or trial; see origin.json there); use its flags, or remove the folder"
            )
    else:
        shutil.rmtree(workdir, ignore_errors=True)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{workdir}: cannot be made ({error.strerror}); choose another --runs-dir"
        ) from error
    write_text(noted, json.dumps(origin.to_dict(), indent=2) + "\n")
    return workdir


def train(candidate: Candidate, recipe: Recipe, data, images, workdir: Path, args: Namespace, tell):
    """The trained network, its epochs and what it started from; `tell` takes each epoch as
    plain data."""
    from detector.data.prepare import Part
    from detector.network.model import build_detector
    from detector.training.fit import LAST
    from detector.weights import checkpoint
    from nas.engine.disk_space import prepare_images
    from nas.terminal.progress_bars import TrainingBar

    parts = [Part(images, recipe.cache_size)]
    if not args.with_holdout:
        parts.append(Part(data.holdout, recipe.evaluation.size))
    prepared, *others = prepare_images(parts, workdir / "cache", shared=args.workers > 1)
    holdout = others[0] if others else None
    try:
        with TrainingBar(recipe.epochs) as bar:
            for epoch in _epochs(candidate, recipe, prepared, holdout, workdir, args, bar.step):
                bar.epoch(epoch.epoch, epoch.losses, epoch.ap)
                tell(asdict(epoch))
    except KeyboardInterrupt:
        print("stopped; the last finished epoch is kept: the same command with --resume goes on")
        raise
    except TrainingError as error:
        raise UserError(f"{error}; here a smaller --batch-size lowers it, too") from error
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"out of memory with {recipe.batch_size} images of {recipe.size} px a step; add "
            f"--accumulate {2 * recipe.accumulate} to take them in so many parts (with --resume "
            "from the last finished epoch), or start again with a smaller --batch-size"
        ) from error
    saved = checkpoint.load(workdir / LAST)
    net = build_detector(candidate.config)
    net.load_state_dict(saved.model)
    start = saved.state.get("start")
    return net.eval(), saved.state["history"], start and Start.from_dict(start)


def _epochs(
    candidate: Candidate, recipe: Recipe, images, holdout, workdir: Path, args: Namespace, progress
):
    from detector.training.fit import choose_device, fit

    if args.workers == 1:
        return fit(
            candidate.config,
            recipe,
            images,
            holdout,
            workdir=workdir,
            device=args.device,
            progress=progress,
        )
    from trials.compute.distributed import fit_on_ray

    if recipe.norm == "sync" and choose_device(args.device).type == "cpu":
        print(
            "note: on CPUs each worker normalises by the statistics of its own images "
            "(SyncBatchNorm needs GPUs)"
        )
    return fit_on_ray(
        candidate.config,
        recipe,
        images,
        holdout,
        workdir=workdir,
        device=args.device,
        workers=args.workers,
        progress=progress,
    )


def holdout_ap(candidate: Candidate, recipe: Recipe, net, data, args: Namespace) -> dict | None:
    """AP of the hold-out at original image size."""
    from detector.inference.predict import evaluate
    from detector.training.fit import choose_device
    from nas.terminal.progress_bars import ImagesBar

    if args.with_holdout:
        return None
    with ImagesBar("hold-out") as bar:
        return evaluate(
            net,
            candidate.config,
            data.holdout,
            replace(recipe.evaluation, size=None),
            choose_device(args.device),
            progress=bar.update,
        )


def facts(candidate: Candidate, recipe: Recipe, origin: Origin) -> dict:
    """What metrics.json says of a retrain before it begins."""
    from trials.names import describe

    return {
        "title": candidate.title,
        "design": arch_hash(candidate.config),
        "describe": describe(candidate.config),
        "origin": origin.to_dict(),
        "recipe": recipe.to_dict(),
        "versions": versions(),
    }


def results(
    candidate: Candidate, recipe: Recipe, history: list[dict], ap: dict | None, workers: int
) -> dict:
    """What it says of its end."""
    cost = candidate.cost or Cost.of(candidate.config)
    timed = candidate.objective.metric == "latency_ms"
    # A latency that no study measured is left to nas.evaluate.
    speed = None if timed and cost.latency_ms is None else candidate.objective.speed_score(cost)
    accuracy = sum(ap.values()) / len(ap) if ap else None
    score = None if None in (accuracy, speed) else candidate.objective.score(accuracy, speed)
    watched = [
        (sum(epoch["ap"].values()) / len(epoch["ap"]), epoch) for epoch in history if epoch["ap"]
    ]
    best, at = max(watched, key=lambda look: look[0], default=(None, None))
    return {
        "params": cost.params,
        "macs": cost.macs,
        "latency_ms": cost.latency_ms,
        "machine": cost.machine if timed else None,
        "ap": ap,
        "ap_on": "hold-out of train, original image size"
        if ap
        else "nothing: trained on the hold-out, too",
        "accuracy_score": accuracy,
        "speed_score": speed,
        "score": score,
        "best_epoch": at
        and {
            "epoch": at["epoch"],
            "ap": at["ap"],
            "accuracy_score": best,
            "size": recipe.evaluation.size,
        },
        "folder": str(candidate.folder),
        "finished": time.time(),
        "seconds": round(sum(epoch["seconds"] for epoch in history), 1),
        "workers": workers,
        "epochs": history,
    }
