"""python -m nas.evaluate: AP on the val images, cost, score and the competition's rules."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from detector.config.recipe import Evaluation
from nas.evaluation.options import EvaluateOptions
from nas.models.model_folder import ModelChoice
from nas.terminal import cli, tta_flags

DESCRIPTION = """\
Score a model, or prediction files, on the val images: easy, medium and hard AP by WIDER FACE's
protocol. Of a model it also tells parameters, MACs, latency, the score and each rule of the
competition with its evidence. COCO's AP and AR on demand.

  python -m nas.evaluate                                  (the model that was retrained last)
  python -m nas.evaluate --study retina-001
  python -m nas.evaluate --checkpoint FILE --preset retinaface_mobile025 --data data/widerface
  python -m nas.evaluate --model model.onnx --data data/widerface
  python -m nas.evaluate --predictions DIR --data data/widerface
  python -m nas.evaluate --test-size vga --flip --metric coco

A model sees the images that the annotation lists, as they are stored: boxes are px of the file
before any rotation by EXIF. Score above 0.02, 5,000 boxes into NMS at 0.4, 750 kept. Prediction
files are scored on all 3,226 images of the official lists, or with --listed-only on those that
the annotation lists. COCO's numbers are of the latter, with boxes as found (prediction files have
whole px); faces flagged invalid or iscrowd are its crowds: detections in them count neither way.
Images that cannot be read count as without detections and are listed at the end, exit code 1."""


def make_parser() -> ArgumentParser:
    made = cli.parser("nas.evaluate", DESCRIPTION)
    what = made.add_argument_group("what to score")
    cli.add_model_flags(what)
    what.add_argument(
        "--model", metavar="FILE", type=Path, help="a model that nas.export wrote, .onnx or .xml"
    )
    what.add_argument(
        "--predictions", metavar="DIR", type=Path, help="prediction files, DIR/<event>/<image>.txt"
    )
    on = made.add_argument_group("images and faces")
    on.add_argument(
        "--data",
        metavar="PATH",
        help="folder of WIDER FACE, or synthetic (default: what the model was trained "
        "on; else data/widerface where it is there, else synthetic)",
    )
    on.add_argument(
        "--ground-truth",
        metavar="DIR",
        type=Path,
        help="folder of the official lists, wider_*_val.mat (default: ground_truth in "
        "the data folder; without it faces count by their height)",
    )
    on.add_argument(
        "--listed-only",
        action="store_true",
        help="with --predictions: only the images that the annotation lists",
    )
    on.add_argument(
        "--metric",
        choices=("wider", "coco"),
        default="wider",
        help="coco: COCO's AP and AR as well, on the images that the annotation lists "
        "(default: wider, easy, medium and hard AP)",
    )
    on.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="write the model's prediction files into this new folder, too",
    )
    how = made.add_argument_group("how the model looks at an image")
    tta_flags.add_size_flag(how)
    tta_flags.add_tta_flags(how)
    cli.add_device_flag(made)
    return made


def run(args: Namespace) -> dict:
    """Evaluate as the command line says; returns what --json writes."""
    options = EvaluateOptions(
        model=ModelChoice.of(args),
        predictions=args.predictions,
        data=args.data,
        ground_truth=args.ground_truth,
        listed_only=args.listed_only,
        coco=args.metric == "coco",
        output=args.output,
        settings=tta_flags.tta_settings(args, Evaluation()),
        device=args.device,
        tracking_uri=args.tracking_uri,
    )
    if options.predictions is not None:
        from nas.evaluation.prediction_files import evaluate_predictions

        return evaluate_predictions(options)
    from nas.evaluation.model import evaluate_model

    return evaluate_model(options)


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
