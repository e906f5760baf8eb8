"""python -m nas.retrain: trains a design in full and saves the model."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from nas.retraining.candidate import (
    EPOCHS,
    EVALUATIONS,
    SIZE,
    WATCH_SIZE,
    batch_size_or_auto,
)
from nas.retraining.options import RetrainOptions
from nas.terminal import cli

DESCRIPTION = """\
Train the winner of a search in full: for more epochs and on larger images than its proxy. It is
trained on the training images without the hold-out and scored on the hold-out, at original image
size; `nas.evaluate` then scores it on the val images.

  python -m nas.retrain --best
  python -m nas.retrain --best --study retina-001 --epochs 40 --size 416
  python -m nas.retrain --top 4           (the 4 best; keeps the best retrain)
  python -m nas.retrain --preset retinaface_mobile025     (the baseline)

Without --study, the newest study is used. A preset is trained like the trials of the study; as
published if there is no study, or if --data is given without --study. A retrain that was
interrupted is resumed by the same command with --resume.

The model is saved to RUNS_DIR/STUDY/best (weights.pt, config.yaml, metrics.json); with --trial 7 to
RUNS_DIR/STUDY/retrained/r007; a preset to RUNS_DIR/STUDY/retrained/PRESET, or without a study to
RUNS_DIR/PRESET/best. With --top, all models are saved to retrained, and the best is copied to
best."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.retrain", DESCRIPTION)
    design = parser.add_argument_group("what to train").add_mutually_exclusive_group()
    design.add_argument(
        "--best", action="store_true", help="the completed trial with the best score (default)"
    )
    design.add_argument(
        "--top",
        metavar="K",
        type=int,
        help="the K completed trials with the best scores; the model that scores best on "
        "the hold-out is kept as the study's best",
    )
    design.add_argument("--trial", metavar="N", type=int, help="this trial of the study")
    design.add_argument(
        "--preset",
        metavar="NAME",
        help="a fixed design: the name of a file in search_spaces/presets, or a YAML file of "
        "that form, whose name the model gets",
    )
    training = parser.add_argument_group("how to train")
    training.add_argument(
        "--epochs",
        metavar="N",
        type=int,
        help=f"number of epochs (default: {EPOCHS}; for a preset without a study, as published)",
    )
    training.add_argument(
        "--size",
        metavar="PX",
        type=int,
        help="side of the square training crops in px, a multiple of 32 "
        f"(default: {SIZE}, or less if the images are smaller)",
    )
    training.add_argument(
        "--batch-size",
        metavar="B",
        type=batch_size_or_auto,
        help="images per step; the learning rate is scaled in proportion, for adamw by the "
        "square root. auto: the recipe's batch size, on a GPU doubled until larger batches "
        "hardly train more images per second (default: the recipe's)",
    )
    training.add_argument(
        "--recipe",
        metavar="FILE",
        type=Path,
        help="a YAML file with changes to the recipe, or a shipped one by name: full or short "
        "(search_spaces/recipes) for a preset (default: no changes)",
    )
    training.add_argument(
        "--accumulate",
        metavar="K",
        type=cli.count,
        help="accumulate the gradients of a step over K parts of its images: less memory, the "
        "same gradients, except that batch normalisation sees each part alone (default: 1)",
    )
    training.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="fp16 uses loss scaling; auto is bf16 if the device supports it, else fp32 "
        "(default: the recipe's, auto)",
    )
    training.add_argument(
        "--ema",
        metavar="DECAY",
        type=float,
        help="evaluate and save an exponential moving average of the weights with this decay, "
        "such as 0.999 (default: the recipe's, none)",
    )
    training.add_argument(
        "--eval-every",
        metavar="N",
        type=int,
        help="epochs between evaluations on the hold-out, at a long side of "
        f"{WATCH_SIZE} px; 0: only at the end (default: {EVALUATIONS} evaluations in all)",
    )
    start = training.add_mutually_exclusive_group()
    start.add_argument(
        "--weights",
        metavar="FILE",
        help="start from a backbone trained on ImageNet-1k: a file, or imagenet for the "
        "published one most similar to the design; if widths or depths differ, the channels "
        "and layers that overlap are copied (default: as the trial; in a search, from scratch)",
    )
    start.add_argument(
        "--init-from",
        metavar="CHECKPOINT",
        help="fine-tune: start at epoch 0, with a new optimiser, from all weights of a trained "
        "detector (weights.pt, last.pt, or a released file, see --preset of nas.evaluate); if "
        "its design differs, the channels and layers that overlap are copied",
    )
    training.add_argument(
        "--teacher",
        metavar="CHECKPOINT",
        help="distillation: also learn the scores and boxes that a trained, larger detector "
        "(weights.pt of a model folder, or a released file) predicts on the same crops, at the "
        "strides that both have; `distillation` in the recipe weights them. The rules allow it if "
        "the teacher saw no other images, which nas.evaluate reports",
    )
    training.add_argument(
        "--teacher-preset",
        metavar="NAME",
        help="the design of the teacher, for weights that do not contain it",
    )
    training.add_argument(
        "--with-holdout",
        action="store_true",
        help="also train on the hold-out, for the final entry; the model's metrics record "
        "this, and have no AP on the hold-out",
    )
    training.add_argument(
        "--champion",
        action="store_true",
        help="make it the champion among MLflow's registered models, whatever its score "
        "(default: only if its score is better)",
    )
    training.add_argument(
        "--resume",
        action="store_true",
        help="resume this retrain where it stopped, including the optimiser (to start another "
        "one from its weights, use --init-from); if it is finished, show its result",
    )
    cli.add_device_flag(training)
    training.add_argument(
        "--workers",
        metavar="N",
        type=cli.count,
        default=1,
        help="split the images of each step among N workers, by Ray Train: one per GPU, or "
        "several if there are fewer GPUs; without GPUs each has a share of the CPU. A worker "
        "that dies is replaced and its epoch repeated. If RAY_ADDRESS is set, they run on the "
        "nodes of that cluster, which must all see RUNS_DIR (default: 1)",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="folder of WIDER FACE, or synthetic (default: the study's; without a study, "
        "data/widerface if it exists, else synthetic)",
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
        help="share of those that is held out (default: the study's, else 0.2)",
    )
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes: the content of metrics.json, with --top that of
    every retrain."""
    from nas.retraining.retrain import retrain_one, retrain_top

    options = RetrainOptions.of(args)
    if options.top is not None:
        return retrain_top(options)
    return retrain_one(options).to_dict()


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
