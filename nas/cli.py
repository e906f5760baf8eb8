"""What the commands of a search share: flags on top of those of `trials.commands`. Light to
import."""

from __future__ import annotations

import argparse

from trials import commands
from trials.commands import main, write_text

__all__ = ["add_data_flags", "add_device_flag", "data_choice", "main", "parser", "write_text"]


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with the flags every command of a search has.

    Args:
        prog: as typed after `python -m`, such as "nas.search".
        description: what the command does, for a newcomer.
    """
    made, shared = commands.parser(prog, description)
    shared.add_argument("--study", metavar="NAME",
                        help="the study (one search) to use; its folder is RUNS_DIR/NAME "
                             "(default: see above)")
    shared.add_argument("--tracking-uri", metavar="URI", default="sqlite:///mlflow.db",
                        help="MLflow store or server; none switches MLflow off "
                             "(default: sqlite:///mlflow.db, which `mlflow ui` opens)")
    shared.add_argument("--seed", metavar="N", type=int, default=0,
                        help="of everything drawn by chance (default: 0)")
    return made


def add_data_flags(made: argparse.ArgumentParser) -> None:
    """Flags that choose the images; read back by `data_choice`."""
    data = made.add_argument_group("data")
    data.add_argument("--data", metavar="PATH",
                      help="folder of WIDER FACE (official layout or RetinaFace's), or synthetic "
                           "for the built-in set (default: data/widerface where it is there, "
                           "else synthetic)")
    data.add_argument("--fraction", metavar="SHARE", type=float, default=1.0,
                      help="share of the training images to use, drawn evenly from all events; "
                           "the competition's third is 0.333 (default: 1)")
    data.add_argument("--holdout", metavar="SHARE", type=float, default=0.2,
                      help="share of those kept out of training to compare designs on "
                           "(default: 0.2)")
    data.add_argument("--select-on", choices=("holdout", "val"), default="holdout",
                      help="compare designs on the hold-out of train, or on the official val "
                           "images, as most competitors do; the record then says so "
                           "(default: holdout)")


def add_device_flag(made: argparse.ArgumentParser) -> None:
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                      help="auto takes a GPU where there is one (default: auto)")


def data_choice(args: argparse.Namespace, path: str):
    """The flags of `add_data_flags` as a `DataChoice`, with the resolved path.

    Raises:
        UserError: a share out of its range.
    """
    from detector.recipe import DataChoice

    return DataChoice(path=path, fraction=args.fraction, holdout=args.holdout,
                      select_on=args.select_on, seed=args.seed)
