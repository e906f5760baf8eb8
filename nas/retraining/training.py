"""The training of one candidate: its folder, its epochs, its result.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import ConfigError, TrainingError, UserError, first_line, out_of_memory
from detector.base.files import write_text
from detector.base.json_file import read_json
from detector.config.detector import arch_hash
from detector.config.recipe import Recipe
from detector.weights.file_kinds import damage, discard_damaged
from detector.weights.file_names import LAST
from detector.weights.pretrained import Start
from nas.models.model_folder import WEIGHTS
from nas.retraining.candidate import Candidate
from nas.retraining.options import RetrainOptions
from nas.study.versions import versions
from trials.record import Cost, mean_ap
from trials.stored import METRICS, Metrics, Origin, Retrain, read_metrics

if TYPE_CHECKING:
    from detector.training.teacher import TeacherFile


def finished_metrics(candidate: Candidate, recipe: Recipe, origin: Origin) -> Metrics | None:
    """The metrics of the same retrain; None if it has not finished, or its weights are damaged."""
    stored = intact_metrics(candidate.folder)
    if stored is None or stored.recipe != recipe or stored.design != arch_hash(candidate.config):
        return None
    return stored if stored.origin.identity == origin.identity else None


def intact_metrics(folder: Path) -> Metrics | None:
    """The metrics of a retrained model; None if there is none, or if a file of it is damaged, which
    is said: then it is trained again."""
    stored, fault = read_whole(folder)
    if fault:
        print(f"note: {fault}; the model is trained again")
    return stored


def read_whole(folder: Path) -> tuple[Metrics | None, str | None]:
    """The metrics of a retrained model, None if there is none or if a file of it is damaged; and in
    the latter case what is wrong with which file."""
    path = folder / METRICS
    try:
        stored = read_metrics(folder)
        path = folder / WEIGHTS
        reason = stored and damage(path)
    except FileNotFoundError:
        reason = "it is missing"
    except UserError as error:
        reason = first_line(error.__cause__ or error)
    return (None, f"{path}: is damaged ({reason})") if reason else (stored, None)


def prepare_workdir(candidate: Candidate, origin: Origin, options: RetrainOptions) -> Path:
    """The folder to train in; with --resume it may contain an interrupted training.

    Raises:
        UserError: it contains an interrupted training that is not to be resumed, or another one; or
            it cannot be created.
    """
    workdir = candidate.workdir
    origin_file = workdir / "origin.json"
    if line := discard_damaged(workdir / LAST):
        print(f"note: {workdir}: {line}")
    if (workdir / LAST).exists():
        if not options.resume:
            raise UserError(
                f"{workdir}: contains an interrupted retrain; add --resume to continue "
                "it, or remove the folder"
            )
        if origin_file.exists() and _read_origin(origin_file).identity != origin.identity:
            raise UserError(
                f"{workdir}: contains another retrain (with other images, hold-out, trial or "
                "teacher; see origin.json there); use its flags, or remove the folder"
            )
    else:
        shutil.rmtree(workdir, ignore_errors=True)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{workdir}: cannot be created ({error.strerror}); choose another --runs-dir"
        ) from error
    write_text(origin_file, json.dumps(origin.to_dict(), indent=2) + "\n")
    return workdir


def _read_origin(path: Path) -> Origin:
    try:
        return Origin.from_dict(read_json(path))
    except (ConfigError, OSError, RecursionError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); remove it if the retrain was started "
            "with the same flags, otherwise remove its folder"
        ) from error


def train(
    candidate: Candidate,
    recipe: Recipe,
    data,
    images,
    workdir: Path,
    teacher: TeacherFile | None,
    options: RetrainOptions,
    on_epoch,
):
    """Train a candidate; resumes the training in `workdir`, if any.

    Args:
        on_epoch: called with each finished epoch as plain data.

    Returns:
        The network in evaluation mode, its epochs as plain data, and what it was initialized from
        (None: from scratch).

    Raises:
        UserError: the training diverges, or runs out of memory.
    """
    from detector.data.prepare import Part
    from detector.network.model import build_detector
    from detector.weights import checkpoint
    from nas.engine.disk_space import prepare_images
    from nas.terminal.progress_bars import TrainingBar

    parts = [Part(images, recipe.cache_size)]
    if not options.with_holdout:
        parts.append(Part(data.holdout, recipe.evaluation.cache_size))
    prepared, *others = prepare_images(parts, workdir / "cache", shared=options.workers > 1)
    holdout = others[0] if others else None
    try:
        with TrainingBar(recipe.epochs) as bar:
            for epoch in _epochs(
                candidate, recipe, prepared, holdout, workdir, teacher, options, bar.step
            ):
                bar.epoch(epoch.epoch, epoch.losses, epoch.ap)
                on_epoch(asdict(epoch))
    except KeyboardInterrupt:
        print(
            "stopped; to continue after the last finished epoch, add --resume to the same command"
        )
        raise
    except TrainingError as error:
        raise UserError(f"{error}; a smaller --batch-size also lowers the learning rate") from error
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"out of memory with {recipe.batch_size} images of {recipe.size} px per step; add "
            f"--accumulate {2 * recipe.accumulate} to split them into that many parts (and "
            "--resume to continue after the last finished epoch), or start again with a smaller "
            "--batch-size"
        ) from error
    saved = checkpoint.load(workdir / LAST)
    net = build_detector(candidate.config)
    net.load_state_dict(saved.model)
    start = saved.state.get("start")
    return net.eval(), saved.state["history"], start and Start.from_dict(start)


def _epochs(
    candidate: Candidate,
    recipe: Recipe,
    images,
    holdout,
    workdir: Path,
    teacher: TeacherFile | None,
    options: RetrainOptions,
    progress,
):
    from detector.training.fit import choose_device, fit

    if options.workers == 1:
        return fit(
            candidate.config,
            recipe,
            images,
            holdout,
            workdir=workdir,
            device=options.device,
            teacher=teacher,
            progress=progress,
        )
    from trials.compute.distributed import fit_on_ray

    if recipe.norm == "sync" and choose_device(options.device).type == "cpu":
        print(
            "note: on CPUs, each worker uses batch normalisation statistics of its own images "
            "(SyncBatchNorm needs GPUs)"
        )
    return fit_on_ray(
        candidate.config,
        recipe,
        images,
        holdout,
        workdir=workdir,
        device=options.device,
        workers=options.workers,
        teacher=teacher,
        progress=progress,
    )


def holdout_ap(
    candidate: Candidate, recipe: Recipe, net, data, options: RetrainOptions
) -> dict | None:
    """AP on the hold-out at original image size; None if it was part of the training images."""
    from detector.inference.predict import evaluate
    from detector.training.fit import choose_device
    from nas.terminal.progress_bars import ImagesBar

    if options.with_holdout:
        return None
    with ImagesBar("hold-out") as bar:
        return evaluate(
            net,
            candidate.config,
            data.holdout,
            recipe.evaluation.at_original_size,
            choose_device(options.device),
            progress=bar.update,
        )


def retrain_facts(
    candidate: Candidate, recipe: Recipe, origin: Origin, chosen_batch_size: int | None
) -> Retrain:
    """The facts of a retrain that are known before it starts."""
    from trials.names import describe

    return Retrain(
        title=candidate.title,
        design=arch_hash(candidate.config),
        describe=describe(candidate.config),
        origin=origin,
        recipe=recipe,
        versions=versions(),
        chosen_batch_size=chosen_batch_size,
    )


def retrain_metrics(
    candidate: Candidate, retrain: Retrain, history: list[dict], ap: dict | None, workers: int
) -> Metrics:
    """The metrics of a finished retrain.

    Args:
        retrain: its facts.
        history: its epochs as plain data.
        ap: on the hold-out; None if that was part of the training images.
        workers: number of processes that trained it.
    """
    cost = candidate.cost or Cost.of(candidate.config)
    objective = candidate.objective
    # If the study measured no latency, nas.evaluate will.
    speed = objective.speed_score(cost) if objective.measured(cost) else None
    scored = objective.unmeasured(cost) is None
    evaluated = [epoch for epoch in history if epoch["ap"]]
    best = max(evaluated, key=lambda epoch: mean_ap(epoch["ap"]), default=None)
    return Metrics(
        **{field.name: getattr(retrain, field.name) for field in fields(Retrain)},
        params=cost.params,
        macs=cost.macs,
        latency_ms=cost.latency_ms,
        machine=cost.machine if objective.uses_latency else None,
        ap=ap,
        ap_on="hold-out of train, original image size"
        if ap
        else "nothing: trained on the hold-out, too",
        accuracy_score=mean_ap(ap) if ap else None,
        speed_score=speed,
        score=objective.score_of(ap, cost) if ap and scored else None,
        best_epoch=best
        and {
            "epoch": best["epoch"],
            "ap": best["ap"],
            "accuracy_score": mean_ap(best["ap"]),
            "size": retrain.recipe.evaluation.size,
        },
        folder=str(candidate.folder),
        finished=time.time(),
        seconds=round(sum(epoch["seconds"] for epoch in history), 1),
        workers=workers,
        epochs=tuple(history),
    )
