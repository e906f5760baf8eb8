"""A retrain from its candidate to the saved model; of several, the best one is kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import is_file, sha256_of
from detector.config.recipe import DataChoice
from detector.weights.file_names import LAST
from detector.weights.pretrained import START_FILE
from nas.models.model_folder import copy_model, save_model
from nas.retraining import training
from nas.retraining.batch_size import save_batch_size, with_auto_batch_size
from nas.retraining.candidate import (
    Candidate,
    choose_candidate,
    choose_top_candidates,
    full_recipe,
    limit_crop_size,
)
from nas.retraining.check_start import check_start
from nas.retraining.options import AUTO, RetrainOptions
from nas.retraining.summary import print_next, print_plan, print_result
from nas.retraining.teacher import choose_teacher, teacher_lines
from nas.study.summary import refresh_report
from nas.tracking.runs import retrain_run
from trials.counts import built_counts
from trials.folders import CONTENTS
from trials.stored import Metrics, Origin
from trials.tracking.mlflow_store import check_store


def retrain_top(options: RetrainOptions) -> dict:
    """Retrain the best trials of a study, and keep the model with the best score on the hold-out.

    Returns:
        What --json writes: `best` (title), `folder`, and `retrained` (metrics of all retrains).
    """
    candidates = choose_top_candidates(options)
    retrained: list[Metrics] = []
    for number, candidate in enumerate(candidates, 1):
        print(f"\n[{number} of {len(candidates)}]")
        retrained.append(retrain(candidate, options, retrained))
    winner = max(retrained, key=_holdout_score)  # if equal, the better proxy
    folder = candidates[0].folder.parents[1] / "best"
    copy_model(Path(winner.folder), folder)
    print("\nscores of the retrains on the hold-out, in the order of their proxies' scores:")
    for metrics in retrained:
        mark = "  <- best" if metrics is winner else ""
        print(f"  {_holdout_score(metrics):.4f}  {metrics.title} ({metrics.describe}){mark}")
    print(f"copied to {folder}")
    refresh_report(folder.parent)
    print_next(options, folder)
    return {
        "best": winner.title,
        "folder": str(folder),
        "retrained": [metrics.to_dict() for metrics in retrained],
    }


def _holdout_score(metrics: Metrics) -> float:
    """The value to compare retrains by: the score, or the accuracy if no latency was measured."""
    score = metrics.accuracy_score if metrics.score is None else metrics.score
    assert score is not None, "without a hold-out there is no score"
    return score


def retrain_one(options: RetrainOptions) -> Metrics:
    """Retrain what the options name, refresh the study's report, and say what follows.

    Raises:
        UserError: as `retrain` does; or there is no such study, trial or preset.
    """
    candidate = choose_candidate(options)
    metrics = retrain(candidate, options)
    if candidate.study is not None:
        refresh_report(options.runs_dir / candidate.study)
    print_next(options, candidate.folder)
    return metrics


def retrain(
    candidate: Candidate, options: RetrainOptions, rivals: Sequence[Metrics] = ()
) -> Metrics:
    """Train a candidate in full, save the model and report it to MLflow.

    Args:
        rivals: retrains of the same command; `options.champion` is for the best of them.

    Raises:
        UserError: a flag, a file or the images are wrong, or the training fails.
    """
    from detector.metrics.face_counts import check_faces

    recipe = full_recipe(candidate, options)  # checks the flags first
    check_store(options.tracking_uri, candidate.space)  # report a wrong URI before the training
    start = check_start(candidate.config, recipe.weights, options)
    teacher = choose_teacher(candidate.config, options)
    data_choice, data = _open_data(options, candidate)
    train = data.all_train if options.with_holdout else data.train
    for note in check_faces(
        train, None if options.with_holdout else data.holdout, data_choice.path
    ):
        print(f"note: {note}")
    if options.size is None:
        recipe = replace(recipe, size=limit_crop_size(recipe.size, train.labels))
    origin = Origin(
        title=candidate.title,
        trial=candidate.trial,
        study=candidate.study,
        space=candidate.space,
        data=data_choice,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        images=len(train),
        with_holdout=options.with_holdout,
        weights_sha256=_weights_sha256(recipe.weights),
        teacher=teacher.record if teacher else None,
        objective=candidate.objective,
    )
    if options.batch_size == AUTO:
        recipe = with_auto_batch_size(candidate, recipe, origin, options, teacher)
    if options.resume and (stored := training.finished_metrics(candidate, recipe, origin)):
        print(f"{candidate.title} has already been retrained:")
        print_result(candidate, stored)
        return stored
    if not (candidate.workdir / LAST).exists():
        built_counts(candidate.config)
    print_plan(candidate, recipe, start, data, train, options)
    for line in teacher_lines(teacher, candidate.config, origin) if teacher else ():
        print(line)
    workdir = training.prepare_workdir(candidate, origin, options)
    chosen_batch_size = None
    if options.batch_size == AUTO:
        chosen_batch_size = recipe.batch_size
        save_batch_size(workdir, chosen_batch_size)
    facts = training.retrain_facts(candidate, recipe, origin, chosen_batch_size)
    with retrain_run(options.tracking_uri, options.runs_dir, facts) as run:
        net, history, start = training.train(
            candidate, recipe, data, train, workdir, teacher, options, run.log_epoch
        )
        ap = training.holdout_ap(candidate, recipe, net, data, options)
        metrics = training.retrain_metrics(
            candidate,
            replace(facts, origin=replace(origin, start=start)),
            history,
            ap,
            options.workers,
        )
        start_file = workdir / START_FILE
        save_model(
            candidate.folder,
            net,
            candidate.config,
            metrics,
            extra_files=[start_file] if start_file.exists() else [],
        )
        shutil.rmtree(workdir, ignore_errors=True)
        print_result(candidate, metrics)
        if options.tracking_uri != "none":
            print("registering the model in MLflow ...", flush=True)
        beaten = all(_holdout_score(metrics) > _holdout_score(rival) for rival in rivals)
        run.finish(metrics, champion=options.champion and beaten)
    return metrics


def _open_data(options: RetrainOptions, candidate: Candidate):
    """The choice of data and the images: the study's, unless the flags say otherwise."""
    from detector.data.contents import check_contents
    from detector.data.open import open_data, resolve_data

    study_choice = candidate.data
    if options.data is None and study_choice is not None:
        path = study_choice.path
        line = f"data: {path} (as study {candidate.study})"
    else:
        path, line = resolve_data(options.data)
    base = study_choice or DataChoice(seed=options.seed)
    choice = replace(
        base,
        path=path,
        fraction=base.fraction if options.fraction is None else options.fraction,
        holdout=base.holdout if options.holdout is None else options.holdout,
    )
    print(line)
    data = open_data(choice)
    for warning in data.warnings:
        print(f"note: {warning}")
    if candidate.study is not None and choice == study_choice:
        check_contents(
            options.runs_dir / candidate.study / CONTENTS,
            [data.train, data.selection],
            candidate.study,
            "give --data to train on the present ones",
        )
    if candidate.fingerprint not in (None, data.fingerprint):
        if choice == study_choice:
            raise UserError(
                f"{path}: not the images of study {candidate.study} (fingerprint "
                f"{candidate.fingerprint}, now {data.fingerprint}); restore them, or "
                "give --data to train on the present ones"
            )
        print("note: the images or the hold-out differ from those of the study")
    return choice, data


def _weights_sha256(weights: str | None) -> str | None:
    return sha256_of(Path(weights)) if weights and is_file(Path(weights)) else None
