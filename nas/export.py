"""python -m nas.export: a trained model as an ONNX or OpenVINO file, checked against torch."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from detector.base.errors import UserError
from detector.config.recipe import Evaluation
from nas.terminal import cli

DESCRIPTION = """\
Write a trained model as an ONNX or OpenVINO file for images of any number and size (uint8, raw
BGR), and run both on the same images at once: the largest differences are printed, and the exit
code is 1 where they are more than rounding.

  python -m nas.export --format onnx                      (the model that was retrained last)
  python -m nas.export --study retina-001 --format openvino
  python -m nas.export --checkpoint FILE --preset retinaface_mobile025 --format onnx --post nms

nas.evaluate --model FILE scores what was written, nas.detect --model FILE uses it."""

POST = {
    "none": "the network alone: class logits and deltas of every anchor",
    "boxes": "boxes, scores and landmarks of every anchor",
    "nms": "the faces: image, box, score and landmarks of each",
}


def make_parser() -> ArgumentParser:
    made = cli.parser("nas.export", DESCRIPTION)
    what = made.add_argument_group("what to export")
    cli.add_model_flags(what)
    to = made.add_argument_group("the file")
    to.add_argument(
        "--format",
        choices=("onnx", "openvino"),
        required=True,
        help="onnx (one file) or openvino (an .xml with a .bin beside it)",
    )
    to.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="the file to write; an older one is replaced once the check has passed "
        "(default: beside the weights, model.onnx or model.xml)",
    )
    to.add_argument(
        "--post",
        choices=tuple(POST),
        default="none",
        help="; ".join(f"{name}: {text}" for name, text in POST.items()) + " (default: none)",
    )
    cli.add_detection_flags(to, Evaluation())
    return made


def run(args: Namespace) -> dict:
    """Export as told on the command line; returns what --json writes."""
    from detector.export.exporter import check, export
    from nas.models.model_folder import ModelChoice, chosen_model

    suffix = {"onnx": ".onnx", "openvino": ".xml"}[args.format]
    if args.output is not None and args.output.suffix != suffix:
        raise UserError(f"--output {args.output}: must end in {suffix} for --format {args.format}")
    settings = cli.detection_settings(args, Evaluation())
    model = chosen_model(ModelChoice.of(args))
    target = args.output or model.path.with_name(f"model{suffix}")
    if not target.parent.is_dir():
        raise UserError(f"--output {target}: folder {target.parent} does not exist; make it first")
    print(f"model: {model.title}\n  {model.path}")
    # Beside the target until the check has passed: an older file stays as it is.
    aside = target.with_name(f"{target.stem}.unchecked{suffix}")
    export(model.net, model.config, aside, args.post, settings)
    checked = check(model.net, aside)
    result = {
        "model": model.title,
        "checkpoint": str(model.path),
        "format": args.format,
        "post": args.post,
        "file": str(target if checked.passed else aside),
        "passed": checked.passed,
        "differences": checked.differences,
        "unmatched": checked.unmatched,
        "compared": checked.compared,
    }
    for name, difference in checked.differences.items():
        print(f"largest difference from torch  {name:<16}{difference:.3g}")
    if args.post == "nms":
        print(
            f"faces compared  {checked.compared}, found by one of both alone "
            f"{checked.unmatched}"
            + ("; the check's scenes hold no face for this model" * (not checked.compared))
        )
    if not checked.passed:
        raise cli.PartialFailure(
            f"{aside}: differs from torch by more than rounding; it is kept under "
            f"this name, and {target} is as it was",
            result,
        )
    if suffix == ".xml":
        os.replace(aside.with_suffix(".bin"), target.with_suffix(".bin"))
    os.replace(aside, target)
    print(f"{target}: {POST[args.post]}")
    return result


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
