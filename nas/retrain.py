"""python -m nas.retrain: train one design in full, and keep it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from nas.retraining.candidate import (
    EPOCHS,
    EVALUATIONS,
    SIZE,
    WATCH_SIZE,
    choose,
    images_a_step,
)
from nas.retraining.options import RetrainOptions
from nas.terminal import cli

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
        f"{WATCH_SIZE} px; 0: only at the end (default: {EVALUATIONS} looks)",
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
    """Retrain as the command line says; returns what --json writes: metrics.json, with --top those
    of all."""
    from nas.retraining.retrain import retrain, retrain_top

    options = RetrainOptions.of(args)
    if options.top is not None:
        return retrain_top(options)
    return retrain(choose(options), options).to_dict()


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
