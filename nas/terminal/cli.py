"""The flags that commands share. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from detector.base import cli
from detector.base.cli import (
    EXIT_INTERRUPTED,
    EXIT_PARTIAL,
    EXIT_USER_ERROR,
    PartialFailure,
    count,
    main,
    seed,
)
from detector.base.errors import UserError
from detector.config.recipe import Evaluation
from trials.folders import add_runs_dir
from trials.hints import DEFAULT_TRACKING_URI

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_PARTIAL",
    "EXIT_USER_ERROR",
    "PartialFailure",
    "add_data_flags",
    "add_detection_flags",
    "add_device_flag",
    "add_ground_truth_flag",
    "add_model_flags",
    "count",
    "detection_settings",
    "main",
    "parser",
    "seed",
]


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with the flags that the commands of a study share.

    Args:
        prog: as typed after `python -m`, such as "nas.search".
        description: what the command does, for a newcomer.
    """
    command_parser = cli.parser(prog, description)
    shared = command_parser.add_argument_group("common to all commands")
    add_runs_dir(shared)
    shared.add_argument(
        "--study",
        metavar="NAME",
        help="the study (one search) to use; its folder is RUNS_DIR/NAME (default: see above)",
    )
    shared.add_argument(
        "--tracking-uri",
        metavar="URI",
        default=DEFAULT_TRACKING_URI,
        help="MLflow store or server; none switches MLflow off (default: MLFLOW_TRACKING_URI if "
        "it is set, else sqlite:///mlflow.db); `python -m nas.ui` shows it",
    )
    shared.add_argument(
        "--seed",
        metavar="N",
        type=seed,
        default=0,
        help="of everything that is random (default: 0)",
    )
    return command_parser


def add_data_flags(command_parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the images; `data_choice` reads them."""
    data = command_parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="folder of WIDER FACE (official layout, RetinaFace's, or with JSON "
        "or COCO labels), or synthetic for the built-in set (default: "
        "data/widerface if it exists, else synthetic)",
    )
    data.add_argument(
        "--fraction",
        metavar="SHARE",
        type=float,
        default=1.0,
        help="share of the training images to use, drawn evenly from all events; "
        "the competition's third is 0.333 (default: 1)",
    )
    data.add_argument(
        "--holdout",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="share of those kept out of training to compare designs on (default: 0.2)",
    )
    data.add_argument(
        "--select-on",
        choices=("holdout", "val"),
        default="holdout",
        help="compare designs on the hold-out of train, or on the official val "
        "images, as most competitors do; the record then says so "
        "(default: holdout)",
    )


def add_budget_flag(group: argparse._ActionsContainer) -> None:
    """Add --budget, which `load_space` reads."""
    group.add_argument(
        "--budget",
        metavar="MACS",
        help="replaces the budget of a space that has one (search_spaces/scrfd.yaml), such as 0.5G",
    )


def add_model_flags(group: argparse._ActionsContainer) -> None:
    """Add the flags that choose trained weights, besides --study; `chosen_model` reads them."""
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        type=Path,
        help="weights: of this program, or with --preset of another one (RetinaFace, YuNet, SCRFD, "
        "DamoFD, EResFD)",
    )
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="the design of --checkpoint: a preset by name, or a YAML file like a preset's",
    )


def add_detection_flags(group: argparse._ActionsContainer, default: Evaluation) -> None:
    """Add the flags that choose the faces to keep; `detection_settings` reads them."""
    group.add_argument(
        "--confidence",
        metavar="SCORE",
        type=float,
        help=f"keep only faces with a higher score, in 0–1 (default: {default.score_threshold})",
    )
    group.add_argument(
        "--nms",
        metavar="IOU",
        type=float,
        help="of two faces that overlap by more, keep the one with the higher score, in 0–1 "
        f"(default: {default.nms_iou})",
    )
    group.add_argument(
        "--keep-top-k",
        metavar="N",
        type=count,
        help=f"maximum number of faces in an image (default: {default.keep})",
    )


def given_detection_flags(args: argparse.Namespace) -> list[str]:
    """Those of the flags of `add_detection_flags` that the command line has."""
    values = {"confidence": args.confidence, "nms": args.nms, "keep-top-k": args.keep_top_k}
    return [f"--{name}" for name, value in values.items() if value is not None]


def detection_settings(args: argparse.Namespace, default: Evaluation) -> Evaluation:
    """`default` with the values of the flags of `add_detection_flags`.

    Raises:
        UserError: a number is out of range.
    """
    given = {"score_threshold": args.confidence, "nms_iou": args.nms, "keep": args.keep_top_k}
    for flag, value in (("--confidence", args.confidence), ("--nms", args.nms)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{flag} {value}: must be between 0 and 1")
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def add_ground_truth_flag(group: argparse._ActionsContainer) -> None:
    """Add --ground-truth, which commands that score a model on the val images share."""
    group.add_argument(
        "--ground-truth",
        metavar="DIR",
        type=Path,
        help="folder of the official lists, wider_*_val.mat (default: ground_truth or val/gt in "
        "the data folder; if missing, a face's height decides whether it is easy, medium or hard)",
    )


def add_device_flag(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto uses a GPU if there is one (default: auto)",
    )
