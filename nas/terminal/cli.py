"""The flags that the commands of a study share. Light to import."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from detector.base import cli
from detector.base.cli import (
    EXIT_INTERRUPTED,
    EXIT_PARTLY,
    EXIT_USER_ERROR,
    Partly,
    count,
    main,
)
from detector.base.errors import UserError
from detector.config.recipe import DataChoice, Evaluation
from detector.config.shipped import find_file
from trials.folders import add_runs_dir

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_PARTLY",
    "EXIT_USER_ERROR",
    "Partly",
    "add_data_flags",
    "add_detection_flags",
    "add_device_flag",
    "add_model_flags",
    "count",
    "data_choice",
    "detection_settings",
    "main",
    "parser",
]


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with the flags every command of a search has.

    Args:
        prog: as typed after `python -m`, such as "nas.search".
        description: what the command does, for a newcomer.
    """
    made = cli.parser(prog, description)
    shared = made.add_argument_group("common to all commands")
    add_runs_dir(shared)
    shared.add_argument(
        "--study",
        metavar="NAME",
        help="the study (one search) to use; its folder is RUNS_DIR/NAME (default: see above)",
    )
    shared.add_argument(
        "--tracking-uri",
        metavar="URI",
        default="sqlite:///mlflow.db",
        help="MLflow store or server; none switches MLflow off "
        "(default: sqlite:///mlflow.db, which `mlflow ui` opens)",
    )
    shared.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="of everything drawn by chance (default: 0)",
    )
    return made


def add_data_flags(made: argparse.ArgumentParser) -> None:
    """Flags that choose the images; read back by `data_choice`."""
    data = made.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="folder of WIDER FACE (official layout, RetinaFace's, or with JSON "
        "or COCO labels), or synthetic for the built-in set (default: "
        "data/widerface where it is there, else synthetic)",
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


def add_budget_flag(made) -> None:
    """--budget; read back by `load_space`."""
    made.add_argument(
        "--budget",
        metavar="MACS",
        help="such as 0.5G, in place of that of a space which has one (search_spaces/scrfd.yaml)",
    )


def load_space(args: argparse.Namespace):
    """The `SearchSpace` that --space or FILE names, under the --budget.

    Raises:
        UserError: no such file, a rule of it is broken, or the budget is no number.
    """
    from nas.search_space.space import SearchSpace

    budget = args.budget and cli.quantity(args.budget, "--budget")
    return SearchSpace.load(find_file(args.space, "space"), budget)


def add_model_flags(what) -> None:
    """Flags that choose trained weights, beside --study; `chosen_model` reads them back."""
    what.add_argument(
        "--checkpoint",
        metavar="FILE",
        type=Path,
        help="weights: of this program, or with --preset of another",
    )
    what.add_argument(
        "--preset",
        metavar="NAME",
        help="the design of --checkpoint: a preset by name, or a YAML file of that form",
    )


def add_detection_flags(made, default: Evaluation) -> None:
    """Flags that choose the faces to keep; read back by `detection_settings`."""
    made.add_argument(
        "--confidence",
        metavar="SCORE",
        type=float,
        help=f"faces of a higher score only, in 0–1 (default: {default.score_threshold})",
    )
    made.add_argument(
        "--nms",
        metavar="IOU",
        type=float,
        help="of two faces that overlap by more, the better one is kept, in 0–1 "
        f"(default: {default.nms_iou})",
    )
    made.add_argument(
        "--keep-top-k",
        metavar="N",
        type=count,
        help=f"most faces of an image (default: {default.keep})",
    )


def detection_settings(args: argparse.Namespace, default: Evaluation) -> Evaluation:
    """`default` with what the flags of `add_detection_flags` say.

    Raises:
        UserError: a number out of its range.
    """
    given = {"score_threshold": args.confidence, "nms_iou": args.nms, "keep": args.keep_top_k}
    for flag, value in (("--confidence", args.confidence), ("--nms", args.nms)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{flag} {value}: must be between 0 and 1")
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def add_device_flag(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU where there is one (default: auto)",
    )


def data_choice(args: argparse.Namespace, path: str) -> DataChoice:
    """The flags of `add_data_flags` as a `DataChoice`, with the resolved path.

    Raises:
        UserError: a share out of its range.
    """
    return DataChoice(
        path=path,
        fraction=args.fraction,
        holdout=args.holdout,
        select_on=args.select_on,
        seed=args.seed,
    )
