"""python -m nas.retrain: train one design in full, and keep it."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import write_text
from detector.config.recipe import DataChoice, Recipe
from detector.weights.pretrained import START_FILE, Start
from nas.models.model_folder import Origin, copy_model, read_metrics, save_model, sha256_of
from nas.retraining import training
from nas.retraining.candidate import (
    AUTO,
    EPOCHS,
    LOOKS,
    SIZE,
    WATCH_SIZE,
    Candidate,
    choose,
    choose_top,
    fitting_size,
    full_recipe,
    images_a_step,
    with_batch_size,
)
from nas.retraining.check_start import check_start
from nas.terminal import cli
from nas.tracking.runs import retrain_run

DESCRIPTION = """\
Train the winner of a search in full: more epochs and larger images than its proxy had. It
learns the training images without the hold-out and is scored on the hold-out, at original
image size; `nas.evaluate` then scores it on the val images.

  python -m nas.retrain --best
  python -m nas.retrain --best --study retina-001 --epochs 40 --size 416
  python -m nas.retrain --top 4      (the 4 best one after the other; the retrained scores choose)
  python -m nas.retrain --preset retinaface_mobile025 --study retina-001    (the baseline beside it)

The newest study is used where --study names none; a preset without any study is trained as
published. A retrain that was stopped goes on with the same command and --resume. The model is
RUNS_DIR/STUDY/best (weights.pt, config.yaml, metrics.json); of --trial 7 it is
RUNS_DIR/STUDY/retrained/r007, of a preset .../retrained/PRESET, without a study
RUNS_DIR/PRESET/best. With --top each goes to retrained, and a copy of the best one to best."""

CHOICE = "batch_size.json"
CHOSEN = "chosen_batch_size"
"""Key of the images a step that --batch-size auto came to, there and in metrics.json."""


def make_parser() -> ArgumentParser:
    made = cli.parser("nas.retrain", DESCRIPTION)
    what = made.add_argument_group("what to train").add_mutually_exclusive_group()
    what.add_argument(
        "--best", action="store_true", help="the completed trial with the best score (default)"
    )
    what.add_argument(
        "--top",
        metavar="K",
        type=int,
        help="the K completed trials with the best scores; the one whose retrain "
        "scores best on the hold-out is kept as the study's best",
    )
    what.add_argument("--trial", metavar="N", type=int, help="this trial of the study")
    what.add_argument(
        "--preset",
        metavar="NAME",
        help="a fixed design: one in search_spaces/presets by name, or a YAML file of "
        "that form, after which the model is named",
    )
    how = made.add_argument_group("how to train")
    how.add_argument(
        "--epochs",
        metavar="N",
        type=int,
        help=f"(default: {EPOCHS}; of a preset without a study, as published)",
    )
    how.add_argument(
        "--size",
        metavar="PX",
        type=int,
        help="side of the square training crops, a multiple of 32 "
        f"(default: {SIZE}, less for smaller images)",
    )
    how.add_argument(
        "--batch-size",
        metavar="B",
        type=images_a_step,
        help="images a step; the learning rate follows in proportion, "
        "adamw's by the square root. auto: the recipe's, or on a GPU the first "
        "of its doublings from which on more images a step are hardly more "
        "images a second (default: the recipe's)",
    )
    how.add_argument(
        "--recipe",
        metavar="FILE",
        type=Path,
        help="a YAML file with what is different about the recipe, or a shipped one by "
        "name, such as short (search_spaces/recipes/short.yaml) for a preset "
        "(default: the recipe as it is)",
    )
    how.add_argument(
        "--accumulate",
        metavar="K",
        type=cli.count,
        help="take the images of a step through the network in K parts, one after the "
        "other: less memory, the same gradients, but that batch normalisation "
        "sees each part alone (default: 1)",
    )
    how.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="fp16 scales the loss; auto is bf16 where the device computes in it, "
        "else fp32 (default: the recipe's, auto)",
    )
    how.add_argument(
        "--ema",
        metavar="DECAY",
        type=float,
        help="evaluate and keep a running average of the weights, of which each step "
        "keeps this share, such as 0.999 (default: the recipe's, none)",
    )
    how.add_argument(
        "--eval-every",
        metavar="N",
        type=int,
        help="epochs between looks at the AP on the hold-out, long side "
        f"{WATCH_SIZE} px; 0: only at the end (default: {LOOKS} looks)",
    )
    start = how.add_mutually_exclusive_group()
    start.add_argument(
        "--weights",
        metavar="FILE",
        help="start from a backbone trained on ImageNet-1k: a file, or imagenet for "
        "the published one nearest to the design; where widths or depths "
        "differ, the channels and layers that overlap are copied "
        "(default: as the trial did, in a search from scratch)",
    )
    start.add_argument(
        "--init-from",
        metavar="CHECKPOINT",
        help="fine-tune: start at epoch 0, with a new optimiser, from all weights "
        "of a trained detector (weights.pt, last.pt, or a released RetinaFace "
        "file); of another design, what overlaps is copied",
    )
    how.add_argument(
        "--with-holdout",
        action="store_true",
        help="train on the hold-out, too, for the final entry; the record says so, "
        "and there is no AP on it",
    )
    how.add_argument(
        "--champion",
        action="store_true",
        help="make it the champion among MLflow's registered models whatever its "
        "score (default: only where it is better)",
    )
    how.add_argument(
        "--resume",
        action="store_true",
        help="go on with this very retrain where it was stopped, optimiser and all "
        "(to start another one from its weights: --init-from); one that is "
        "finished is shown",
    )
    cli.add_device_flag(how)
    how.add_argument(
        "--workers",
        metavar="N",
        type=cli.count,
        default=1,
        help="train on N GPUs (without, on N shares of the CPU; on fewer, on shares "
        "of these) that split the images of each step, by Ray Train; one that "
        "dies is replaced, its epoch repeated. With RAY_ADDRESS set on the nodes "
        "of that cluster, which must all see RUNS_DIR (default: 1)",
    )
    data = made.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="folder of WIDER FACE, or synthetic (default: the study's; without one "
        "data/widerface where it is there, else synthetic)",
    )
    data.add_argument(
        "--fraction",
        metavar="SHARE",
        type=float,
        help="share of the training images to use (default: the study's, else 1)",
    )
    data.add_argument(
        "--holdout",
        metavar="SHARE",
        type=float,
        help="share of those held out (default: the study's, else 0.2)",
    )
    return made


def run(args: Namespace) -> dict:
    """Retrain as told on the command line; returns what --json writes: metrics.json, of --top
    those of all K."""
    return _retrain(choose(args), args) if args.top is None else _top(args)


def _top(args: Namespace) -> dict:
    """Retrain the K best and keep the one that is best on the hold-out."""
    if args.with_holdout:
        raise UserError(
            "--top: chooses by the AP on the hold-out, so it has to be left out of "
            "training; retrain the chosen one again with --with-holdout"
        )
    candidates, told = choose_top(args), []
    for place, candidate in enumerate(candidates, 1):
        print(f"\n[{place} of {len(candidates)}]")
        told.append(_retrain(candidate, args))

    def retrained(metrics: dict) -> float:
        return metrics["accuracy_score"] if metrics["score"] is None else metrics["score"]

    winner = max(told, key=retrained)  # of equal ones the better proxy
    folder = candidates[0].folder.parents[1] / "best"
    copy_model(Path(winner["folder"]), folder)
    print("\nscores of the retrains on the hold-out, in the order of their proxies:")
    for metrics in told:
        mark = "  <- best" if metrics is winner else ""
        print(f"  {retrained(metrics):.4f}  {metrics['title']} ({metrics['describe']}){mark}")
    print(f"kept as {folder}")
    return {"best": winner["title"], "folder": str(folder), "retrained": told}


def _retrain(candidate: Candidate, args: Namespace) -> dict:
    recipe = full_recipe(candidate, args)  # checks the flags before anything is opened
    if args.tracking_uri != "none":
        from trials.tracking.mlflow_store import client

        client(args.tracking_uri)  # a wrong one is better told now than after the training
    start = check_start(candidate.config, recipe.weights, args)
    choice, data = _open(args, candidate)
    train = data.all_train if args.with_holdout else data.train
    if args.size is None:
        recipe = replace(recipe, size=fitting_size(recipe.size, train.labels))
    origin = Origin(
        title=candidate.title,
        study=candidate.study,
        space=candidate.space,
        data=choice,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        images=len(train),
        with_holdout=args.with_holdout,
        weights_sha256=_weights_sha256(recipe.weights),
        objective=candidate.objective,
    )
    if args.batch_size == AUTO:
        recipe = _suited(candidate, recipe, origin, args)
    if args.resume and (stored := training.finished(candidate, recipe, origin)):
        print(f"{candidate.title} is retrained already:")
        _print_result(candidate, stored, args)
        return stored
    _print_plan(candidate, recipe, start, data, train, args)
    workdir = training.folder(candidate, origin, args)
    chosen = {CHOSEN: recipe.batch_size} if args.batch_size == AUTO else {}
    if chosen:  # what a resumed training goes on with
        write_text(workdir / CHOICE, json.dumps(chosen) + "\n")
    facts = training.facts(candidate, recipe, origin) | chosen
    with retrain_run(args.tracking_uri, args.runs_dir, facts) as tracked:
        net, history, start = training.train(
            candidate, recipe, data, train, workdir, args, tracked.epoch
        )
        origin = replace(origin, start=start)
        metrics = (
            facts
            | {"origin": origin.to_dict()}
            | training.results(
                candidate,
                recipe,
                history,
                training.holdout_ap(candidate, recipe, net, data, args),
                args.workers,
            )
        )
        save_model(
            candidate.folder,
            net,
            candidate.config,
            recipe,
            origin,
            metrics,
            beside=[path for path in (workdir / START_FILE,) if path.exists()],
        )
        shutil.rmtree(workdir, ignore_errors=True)
        _print_result(candidate, metrics, args)
        tracked.end(metrics, args.champion)
    return metrics


def _suited(candidate: Candidate, recipe: Recipe, origin: Origin, args: Namespace) -> Recipe:
    """The recipe with the --batch-size auto: what this very retrain was begun with, where it is
    resumed, else what suits the device."""
    if args.resume:
        stored = read_metrics(candidate.folder) or {}
        if CHOSEN in stored:
            same = with_batch_size(recipe, stored[CHOSEN])
            if training.finished(candidate, same, origin):
                return same
        noted = candidate.workdir / CHOICE
        if (candidate.workdir / "last.pt").exists() and noted.exists():
            return with_batch_size(recipe, json.loads(noted.read_text())[CHOSEN])
    from detector.training.batch_size import choose_batch_size, sizes_to_try, time_step
    from detector.training.fit import choose_device

    # Each of several workers has its share of a step, so that share is what is tried; without
    # graphs, which do not hold what workers tell each other.
    step = partial(time_step, graph=None if args.workers == 1 else False)
    shares = {
        -(-size // args.workers): size for size in sizes_to_try(recipe.batch_size, origin.images)
    }
    each = f"; for each of {args.workers} workers" if args.workers > 1 else ""
    share = choose_batch_size(
        candidate.config,
        replace(recipe, batch_size=min(shares)),
        choose_device(args.device),
        shares,
        step,
        tell=lambda line: print(line + each),
    )
    return with_batch_size(recipe, shares[share])


def _open(args: Namespace, candidate: Candidate):
    from detector.data.open import open_data, resolve_data

    kept = candidate.data
    if args.data is None and kept is not None:
        path, line = kept.path, f"data: {kept.path} (as study {candidate.study})"
    else:
        path, line = resolve_data(args.data)
    base = kept or DataChoice(seed=args.seed)
    given = {
        key: getattr(args, key) for key in ("fraction", "holdout") if getattr(args, key) is not None
    }
    choice = replace(base, path=path, **given)
    print(line)
    data = open_data(choice)
    for warning in data.warnings:
        print(f"note: {warning}")
    if candidate.fingerprint not in (None, data.fingerprint):
        if choice == kept:
            raise UserError(
                f"{path}: other images than study {candidate.study} had (fingerprint "
                f"{candidate.fingerprint}, now {data.fingerprint}); restore them, or "
                "give --data to train on what is there"
            )
        print("note: these are not the images, or not the hold-out, of the study")
    return choice, data


def _weights_sha256(weights: str | None) -> str | None:
    return sha256_of(Path(weights)) if weights and Path(weights).is_file() else None


def _print_plan(
    candidate: Candidate, recipe: Recipe, start: Start | None, data, train, args: Namespace
) -> None:
    from trials.names import describe

    batch = f"batch {recipe.batch_size}"
    if args.workers > 1:
        batch += f" on {args.workers} workers"
    if recipe.accumulate > 1:
        batch += f" in {recipe.accumulate} parts"
    print(
        f"retrain: {candidate.title} ({describe(candidate.config)})\n"
        f"  {recipe.epochs} epochs, {recipe.size} px, {batch}, lr "
        f"{recipe.optimizer.lr:g} ({recipe.optimizer.schedule}), "
        + (f"from {start.source}" if start else "from scratch")
    )
    if start:
        print(f"  {start}")
    print(
        f"  {len(train)} training images, "
        + (
            f"the hold-out of {len(data.holdout)} among them"
            if args.with_holdout
            else f"without the hold-out of {len(data.holdout)}"
        )
    )
    if candidate.config.head.landmarks and not data.has_landmarks:
        print("note: these images have no landmarks, so the landmark loss is zero")
    if candidate.data is not None and candidate.data.select_on == "val":
        print(
            "note: the study compared its designs on the val images, so their AP is no longer "
            "an honest estimate"
        )


def _print_result(candidate: Candidate, metrics: dict, args: Namespace) -> None:
    from nas.terminal.format import duration

    if metrics["ap"]:
        levels = "  ".join(f"{level} {value:.4f}" for level, value in metrics["ap"].items())
        print(f"hold-out, original image size: AP {levels}  mean {metrics['accuracy_score']:.4f}")
        if metrics["score"] is not None:
            print(
                f"score on the hold-out: {metrics['score']:.4f} (speed "
                f"{metrics['speed_score']:.4f}, {metrics['params']:,} parameters, "
                f"{metrics['macs'] / 1e9:.4f} G MACs)"
            )
    else:
        print("trained on the hold-out, too: no AP on it to report")
    if best := metrics.get("best_epoch"):
        print(
            f"best epoch on the way: {best['epoch']} of {metrics['recipe']['epochs']}, mean AP "
            f"{best['accuracy_score']:.4f} with a long side of {best['size']} px"
        )
    runs = f" --runs-dir {args.runs_dir}" if args.runs_dir != Path("runs") else ""
    print(
        f"saved to {candidate.folder} after {duration(metrics['seconds'])} of training\nnext:\n"
        f"  python -m nas.evaluate{runs}"
    )


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
