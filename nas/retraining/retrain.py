"""A retrain from its candidate to the saved model, and several of which the best is kept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from detector.base.errors import UserError
from detector.config.recipe import DataChoice
from detector.weights.pretrained import START_FILE
from nas.models.model_folder import copy_model, save_model, sha256_of
from nas.retraining import training
from nas.retraining.batch_size import note_batch_size, suitable_batch_size
from nas.retraining.candidate import Candidate, choose_top, fitting_size, full_recipe
from nas.retraining.check_start import check_start
from nas.retraining.options import AUTO, RetrainOptions
from nas.retraining.summary import print_plan, print_result
from nas.tracking.runs import retrain_run
from trials.stored import Metrics, Origin


def retrain_top(options: RetrainOptions) -> dict:
    """Retrain the best trials of a study and keep the model that is best on the hold-out.

    Returns:
        What --json writes: `best`, `folder`, and the metrics of all as `retrained`.
    """
    candidates, retrained = choose_top(options), []
    for number, candidate in enumerate(candidates, 1):
        print(f"\n[{number} of {len(candidates)}]")
        retrained.append(retrain(candidate, options))
    winner = max(retrained, key=_result)  # of equal ones the better proxy
    folder = candidates[0].folder.parents[1] / "best"
    copy_model(Path(winner.folder), folder)
    print("\nscores of the retrains on the hold-out, in the order of their proxies:")
    for metrics in retrained:
        mark = "  <- best" if metrics is winner else ""
        print(f"  {_result(metrics):.4f}  {metrics.title} ({metrics.describe}){mark}")
    print(f"kept as {folder}")
    return {
        "best": winner.title,
        "folder": str(folder),
        "retrained": [metrics.to_dict() for metrics in retrained],
    }


def _result(metrics: Metrics) -> float:
    """What retrains are compared by: the score, or the accuracy where no latency was measured."""
    result = metrics.accuracy_score if metrics.score is None else metrics.score
    assert result is not None, "nothing was held out"
    return result


def retrain(candidate: Candidate, options: RetrainOptions) -> Metrics:
    """Train a candidate in full, save the model and report it to MLflow.

    Raises:
        UserError: a flag, a file or the images are wrong, or the training cannot go on.
    """
    recipe = full_recipe(candidate, options)  # checks the flags before anything is opened
    if options.tracking_uri != "none":
        from trials.tracking.mlflow_store import client

        client(options.tracking_uri)  # report a wrong one now rather than after the training
    start = check_start(candidate.config, recipe.weights, options)
    choice, data = _open_data(options, candidate)
    train = data.all_train if options.with_holdout else data.train
    if options.size is None:
        recipe = replace(recipe, size=fitting_size(recipe.size, train.labels))
    origin = Origin(
        title=candidate.title,
        study=candidate.study,
        space=candidate.space,
        data=choice,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        images=len(train),
        with_holdout=options.with_holdout,
        weights_sha256=_weights_sha256(recipe.weights),
        objective=candidate.objective,
    )
    if options.batch_size == AUTO:
        recipe = suitable_batch_size(candidate, recipe, origin, options)
    if options.resume and (stored := training.finished(candidate, recipe, origin)):
        print(f"{candidate.title} is retrained already:")
        print_result(candidate, stored, options)
        return stored
    print_plan(candidate, recipe, start, data, train, options)
    workdir = training.folder(candidate, origin, options)
    chosen = None
    if options.batch_size == AUTO:
        chosen = recipe.batch_size
        note_batch_size(workdir, chosen)
    facts = training.facts(candidate, recipe, origin, chosen)
    with retrain_run(options.tracking_uri, options.runs_dir, facts) as run:
        net, history, start = training.train(
            candidate, recipe, data, train, workdir, options, run.epoch
        )
        ap = training.holdout_ap(candidate, recipe, net, data, options)
        metrics = training.results(
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
            beside=[start_file] if start_file.exists() else [],
        )
        shutil.rmtree(workdir, ignore_errors=True)
        print_result(candidate, metrics, options)
        run.end(metrics, options.champion)
    return metrics


def _open_data(options: RetrainOptions, candidate: Candidate):
    """The images to train on, as the study had them unless the flags say otherwise."""
    from detector.data.open import open_data, resolve_data

    of_study = candidate.data
    if options.data is None and of_study is not None:
        path, line = of_study.path, f"data: {of_study.path} (as study {candidate.study})"
    else:
        path, line = resolve_data(options.data)
    base = of_study or DataChoice(seed=options.seed)
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
    if candidate.fingerprint not in (None, data.fingerprint):
        if choice == of_study:
            raise UserError(
                f"{path}: other images than study {candidate.study} had (fingerprint "
                f"{candidate.fingerprint}, now {data.fingerprint}); restore them, or "
                "give --data to train on what is there"
            )
        print("note: these are not the images, or not the hold-out, of the study")
    return choice, data


def _weights_sha256(weights: str | None) -> str | None:
    return sha256_of(Path(weights)) if weights and Path(weights).is_file() else None
