"""python -m nas.export: a trained model as an ONNX or OpenVINO file, checked against torch."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError
from detector.base.files import is_folder, link_target
from detector.base.output import print_wrapped
from detector.config.recipe import Evaluation
from nas.terminal import cli
from trials.hints import detect_command

if TYPE_CHECKING:
    from detector.data.open import Data
    from nas.models.model_folder import Model

DESCRIPTION = """\
Write a trained model as an ONNX or OpenVINO file for any batch size and image size (uint8, raw
BGR). The file is then compared with the torch model on the same images: the largest differences
are printed, and the exit code is 1 if they are more than rounding.

  python -m nas.export --format onnx      (the most recently retrained model)
  python -m nas.export --study retina-001 --format openvino
  python -m nas.export --checkpoint FILE --preset yunet_n --format onnx
  python -m nas.export --format openvino --int8           (model-int8.xml)

nas.evaluate --model FILE scores the file, nas.detect --model FILE finds faces with it."""

MAX_LOSS = 0.01
POST = {
    "none": "the outputs of the network, class logits and deltas of every anchor",
    "boxes": "boxes, scores and landmarks of every anchor",
    "nms": "the faces, with image, box, score and landmarks of each",
}


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.export", DESCRIPTION)
    source = parser.add_argument_group("what to export")
    cli.add_model_flags(source)
    target = parser.add_argument_group("exported file")
    target.add_argument(
        "--format",
        choices=("onnx", "openvino"),
        required=True,
        help="onnx (one file) or openvino (an .xml file and a .bin file next to it)",
    )
    target.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="the file to write; an older one is replaced after the check has passed "
        "(default: model.onnx or model.xml, next to the weights)",
    )
    target.add_argument(
        "--post",
        choices=tuple(POST),
        default="none",
        help="post-processing included in the file. "
        + "; ".join(f"{name}: {text}" for name, text in POST.items())
        + " (default: none)",
    )
    cli.add_detection_flags(target, Evaluation())
    int8 = parser.add_argument_group("8-bit integers")
    int8.add_argument(
        "--int8",
        action="store_true",
        help="quantise the convolutions (onnx by ONNX Runtime, openvino by NNCF): calibrated on "
        "training images, and compared with the float graph on the hold-out in AP and latency; "
        "parts of the network that lose most stay in float",
    )
    int8.add_argument(
        "--max-loss",
        metavar="AP",
        type=float,
        help="with --int8: loss of mean AP that is accepted; otherwise nothing is written "
        f"(default: {MAX_LOSS:g})",
    )
    int8.add_argument(
        "--data",
        metavar="PATH",
        help="with --int8: folder of WIDER FACE, or synthetic (default: the data that the model "
        "was trained on)",
    )
    return parser


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    from detector.export.exporter import check, export
    from detector.export.int8 import quantizer
    from detector.export.runtime import replace_graph
    from nas.models.model_folder import ModelChoice, chosen_model
    from nas.models.quantization import open_images

    suffix = {"onnx": ".onnx", "openvino": ".xml"}[args.format]
    if args.output is not None and args.output.suffix != suffix:
        raise UserError(f"--output {args.output}: must end in {suffix} for --format {args.format}")
    if not args.int8 and args.data is not None:
        raise UserError("--data: needs --int8; add that, or leave it out")
    if not args.int8 and args.max_loss is not None:
        raise UserError("--max-loss: needs --int8; add that, or leave it out")
    max_loss = MAX_LOSS if args.max_loss is None else args.max_loss
    if args.post != "nms":
        for flag in cli.given_detection_flags(args):
            raise UserError(f"{flag}: needs --post nms; add that, or leave it out")
    if not 0 <= max_loss <= 1:
        raise UserError(f"--max-loss {max_loss:g}: must be between 0 and 1")
    settings = cli.detection_settings(args, Evaluation())
    model = chosen_model(ModelChoice.of(args))
    name = f"model{'-int8' if args.int8 else ''}{suffix}"
    target = link_target(args.output or model.path.with_name(name))
    if not is_folder(target.parent):
        raise UserError(
            f"--output {target}: folder {target.parent} does not exist; create it first"
        )
    print(f"model: {model.title}\n  {model.path}")
    data = None
    if args.int8:  # what is wrong with it shows at once
        quantizer(target)
        data = open_images(model, args.data)
    # Written next to the target until the check has passed, so that an older file is kept.
    unchecked = target.with_name(f"{target.stem}.unchecked{suffix}")
    print(f"exporting to {target} ...", flush=True)
    export(model.net, model.config, unchecked, args.post, settings)
    print("comparing with torch ...", flush=True)
    comparison = check(model.net, unchecked)
    result = {
        "model": model.title,
        "checkpoint": str(model.path),
        "format": args.format,
        "post": args.post,
        "file": str(target if comparison.passed else unchecked),
        "passed": comparison.passed,
        "differences": comparison.differences,
        "unmatched": comparison.unmatched,
        "compared": comparison.compared,
    }
    for name, difference in comparison.differences.items():
        print(f"largest difference from torch  {name:<16}{difference:.3g}")
    if args.post == "nms":
        print(
            f"faces compared  {comparison.compared}, found by only one of the two "
            f"{comparison.unmatched}"
            + ("; this model finds no face in the check's scenes" * (not comparison.compared))
        )
    if not comparison.passed:
        raise cli.PartialFailure(
            f"{unchecked}: differs from torch by more than rounding; it is kept under this name, "
            f"and {target} is unchanged",
            result,
        )
    if data is not None:
        result["int8"] = _quantize(model, unchecked, data, max_loss)
    replace_graph(unchecked, target)
    print_wrapped(f"{target}: {POST[args.post]}", "  ")
    trained_on = model.origin.data.path if model.origin else None
    print(f"next:\n  {detect_command(trained_on, {'model': target})}")
    return result


def _quantize(model: Model, path: Path, data: Data, max_loss: float) -> dict:
    """Replace the float graph by one in int8; returns what --json writes about it."""
    from detector.export.runtime import graph_files, remove_graph
    from nas.models.quantization import quantize_model

    def size() -> int:
        return sum(file.stat().st_size for file in graph_files(path))

    size_before = size()
    try:
        found = quantize_model(model, path, data, max_loss)
    except BaseException:  # also where it is stopped
        remove_graph(path)
        raise
    size_after = size()
    for level, before in found.ap_before.items():
        after = found.ap_after[level]
        print(f"AP {level:<8}{before:.4f} -> {after:.4f}")
    print(f"latency    {found.ms_before:.1f} -> {found.ms_after:.1f} ms (640×640, one thread)")
    print(f"size       {size_before / 1e6:.2f} -> {size_after / 1e6:.2f} MB")
    if found.float_parts:
        print(f"in float   {', '.join(found.float_parts)}")
    return {
        "ap_before": dict(found.ap_before),
        "ap_after": dict(found.ap_after),
        "images": found.images,
        "latency_ms_before": found.ms_before,
        "latency_ms_after": found.ms_after,
        "bytes_before": size_before,
        "bytes_after": size_after,
        "float_parts": list(found.float_parts),
    }


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
