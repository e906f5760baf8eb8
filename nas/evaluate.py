"""python -m nas.evaluate: AP on the val images, cost, score, and the competition's rules."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from nas.evaluation.options import EvaluateOptions, preset_settings
from nas.models.model_folder import ModelChoice
from nas.terminal import cli, tta_flags

DESCRIPTION = """\
Score a model, or prediction files, on the val images: easy, medium and hard AP by WIDER FACE's
protocol, on request also COCO's AP and AR. For a model it also shows parameters, MACs, latency, the
score, and each rule of the competition with its evidence.

  python -m nas.evaluate                (the most recently retrained model)
  python -m nas.evaluate --study retina-001
  python -m nas.evaluate --checkpoint FILE --preset retinaface_mobile025
  python -m nas.evaluate --model model.onnx --data data/widerface
  python -m nas.evaluate --model face_detection_yunet_2023mar.onnx
  python -m nas.evaluate --predictions DIR --data data/widerface
  python -m nas.evaluate --test-size vga --flip --metric coco

A model is run on the images that the annotation lists, as they are stored: boxes are in px of the
file, before any EXIF rotation. Boxes with a score above 0.02 count; the best 5,000 of an image go
through NMS at an IoU of 0.4, and at most 750 are kept. A preset has its own such numbers, and a
test size, where its detector was published with others: they are used with --preset unless flags
say otherwise. An ONNX graph of another program is recognised by its outputs; its images are
prepared, and its faces filtered, as its kind was published. Prediction files are scored on all
3,226 images of the official lists, or with --listed-only on those that the annotation lists. COCO's
metrics use the images that the annotation lists, and a model's boxes unrounded (prediction files
have whole px). Faces flagged invalid or iscrowd are COCO's crowds: detections inside them count as
neither right nor wrong. Images that cannot be read, or have no prediction file, count as having no
detections and are reported at the end, with exit code 1; with no prediction file for any image it
is 2, as for other wrong input."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.evaluate", DESCRIPTION)
    target = parser.add_argument_group("what to score")
    cli.add_model_flags(target)
    target.add_argument(
        "--model",
        metavar="FILE",
        type=Path,
        help="an exported model (nas.export), .onnx or .xml; or an ONNX graph of YuNet, SCRFD, "
        "RetinaFace, YOLOv5-face or YOLOv8-face, of any program",
    )
    target.add_argument(
        "--predictions", metavar="DIR", type=Path, help="prediction files, DIR/<event>/<image>.txt"
    )
    data = parser.add_argument_group("images, ground truth and metric")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="folder of WIDER FACE, or synthetic (default: the data that the model was trained "
        "on; if that is unknown, data/widerface if it exists, else synthetic)",
    )
    cli.add_ground_truth_flag(data)
    data.add_argument(
        "--listed-only",
        action="store_true",
        help="with --predictions: score only the images that the annotation lists",
    )
    data.add_argument(
        "--metric",
        choices=("wider", "coco"),
        default="wider",
        help="wider: easy, medium and hard AP; coco: also COCO's AP and AR, on the images "
        "that the annotation lists (default: wider)",
    )
    data.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="also write the model's prediction files to this new folder",
    )
    tta = parser.add_argument_group("test size and test-time augmentation")
    tta_flags.add_size_flag(tta)
    tta_flags.add_tta_flags(tta, "those of --preset, otherwise 1")
    speed = parser.add_argument_group("latency")
    speed.add_argument(
        "--beside",
        metavar="MODEL",
        help="also measure the latency of this model, in alternation: weights, an exported model "
        "or a preset (default: for a graph of another program the most recently retrained model, "
        "or retinaface_mobile025 if there is none)",
    )
    cli.add_device_flag(parser)
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    choice = ModelChoice.of(args)  # flags are checked before a file is read
    graph = args.model if args.predictions is None else None
    settings, settings_of = preset_settings(args.preset, graph)
    options = EvaluateOptions(
        model=choice,
        predictions=args.predictions,
        data=args.data,
        ground_truth=args.ground_truth,
        listed_only=args.listed_only,
        coco=args.metric == "coco",
        output=args.output,
        settings=tta_flags.tta_settings(args, settings),
        settings_of=settings_of,
        beside=args.beside,
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
