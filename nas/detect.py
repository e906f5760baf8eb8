"""python -m nas.detect: faces in images, folders and videos."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from detector.base.errors import UserError, disk_full
from detector.config.recipe import Evaluation
from nas.terminal import cli, tta_flags
from nas.terminal.format import number_of
from trials.hints import BUILT_IN_DATA

DESCRIPTION = """\
Find faces in images, folders of images and videos. For each file, a JSON file of the same name in
the output folder lists boxes [x1, y1, x2, y2], scores and landmarks, in px of the upright image.

  python -m nas.detect photos --output found     (by the model retrained last)
  python -m nas.detect a.jpg b.mp4 --output found --visualize --confidence 0.5
  python -m nas.detect photos --output found --checkpoint FILE --preset yunet_n
  python -m nas.detect photos --output found --model model.onnx
  python -m nas.detect synthetic --output found --visualize  (built-in scenes)

Files that cannot be read or drawn are listed at the end, with exit code 1; the others are done."""

SETTINGS = Evaluation(score_threshold=0.5)
SCENES = 6
"""Built-in scenes that `synthetic` stands for."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.detect", DESCRIPTION)
    parser.add_argument(
        "inputs",
        metavar="IMAGE|FOLDER|VIDEO",
        nargs="+",
        type=Path,
        help="the files to find faces in; folders are searched with all their subfolders; "
        "synthetic: some built-in drawn scenes, which are written to DIR/scenes",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder for the results, created if missing; files of an earlier run are replaced",
    )
    parser.add_argument(
        "--visualize",
        action="store_true",
        help="also write copies of the images and videos with the faces drawn",
    )
    model = parser.add_argument_group("model")
    cli.add_model_flags(model)
    model.add_argument(
        "--model",
        metavar="FILE",
        type=Path,
        help="an exported model (nas.export), .onnx or .xml; or an ONNX graph of another program, "
        "as nas.evaluate takes it",
    )
    detection = parser.add_argument_group("detection")
    detection.add_argument(
        "--max-size",
        metavar="PX",
        type=cli.count,
        help="scale larger images down to this long side first: faster, but misses small "
        "faces (default: original size, at most as many pixels as 4096×4096)",
    )
    cli.add_detection_flags(detection, SETTINGS)
    tta_flags.add_tta_flags(detection)
    detection.add_argument(
        "--batch-size",
        metavar="N",
        type=cli.count,
        default=1,
        help="images of the same size per forward pass (default: 1; use more on a GPU)",
    )
    detection.add_argument(
        "--workers",
        metavar="N",
        type=cli.count,
        default=2,
        help="threads that read and decode images in advance (default: 2)",
    )
    detection.add_argument(
        "--fp16", action="store_true", help="compute in half precision; needs a GPU"
    )
    cli.add_device_flag(parser)
    return parser


def _scenes(output: Path) -> Path:
    """A folder of built-in scenes as image files, written now."""
    import cv2

    from detector.base.files import write_bytes
    from detector.config.recipe import DataChoice
    from detector.data.open import open_data

    images, folder = open_data(DataChoice(path=BUILT_IN_DATA)).val, output / "scenes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output {output}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    for index in range(SCENES):
        encoded = cv2.imencode(".png", images.image(index))[1]
        write_bytes(folder / f"{index}.png", encoded.tobytes())
    return folder


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    from detector.inference.detect_files import FileDetector
    from detector.inference.media import find_sources
    from detector.training.fit import choose_device
    from nas.evaluation.subject import load_subject
    from nas.models.model_folder import ModelChoice
    from nas.terminal.progress_bars import ImagesBar

    settings = tta_flags.tta_settings(args, cli.detection_settings(args, SETTINGS))
    notes: list[str] = []
    unreadable: list[str] = []
    undrawn: list[str] = []
    inputs = [_scenes(args.output) if str(p) == BUILT_IN_DATA else p for p in args.inputs]
    sources = find_sources(inputs, notes, unreadable)
    count = len(sources) + len(unreadable)
    device = choose_device(args.device)
    if args.fp16 and (str(device) == "cpu" or args.model is not None):
        raise UserError("--fp16: needs a GPU and a torch model; leave it out")
    model = load_subject(ModelChoice.of(args))
    print(f"model: {model.title}\n  {model.path}")
    detector = FileDetector(
        model.net,
        model.config,
        settings,
        device=device,
        max_size=args.max_size,
        batch_size=args.batch_size,
        workers=args.workers,
        fp16=args.fp16,
    )
    faces: dict[str, int] = {}
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        with ImagesBar("files") as bar:
            results = detector.detect(sources, args.output, args.visualize)
            for done, file_result in enumerate(results, 1):
                if file_result.error:
                    unreadable.append(file_result.error)
                if file_result.drawing_error:
                    undrawn.append(file_result.drawing_error)
                if file_result.frames:
                    faces[str(file_result.source.path)] = file_result.faces
                notes += file_result.notes
                bar.update(done, len(sources))
    except OSError as error:
        raise UserError(
            f"--output {args.output}: cannot be written ({error.strerror}); choose another folder"
            + (", or free some space" if disk_full(error) else "")
        ) from error
    for note in notes:
        print(f"note: {note}")
    total = sum(faces.values())
    print(
        f"{args.output}: {number_of(total, 'face')} in {len(faces):,} of {number_of(count, 'file')}"
    )
    result = {
        "model": model.title,
        "output": str(args.output),
        "files": count,
        "faces": faces,
        "notes": notes,
        "unreadable": unreadable,
        "undrawn": undrawn,
        "settings": json.loads(json.dumps(settings.to_dict())),
    }
    faults = {"cannot be read": unreadable, "cannot be drawn": undrawn}
    for fault, lines in faults.items():
        if lines:
            print(f"{fault}:\n  " + "\n  ".join(lines))
    if unreadable or undrawn:
        counts = [
            f"{len(lines)} of {number_of(count, 'file')} {what}"
            for what, lines in faults.items()
            if lines
        ]
        others = "; all others were processed" if len(faces) else ""
        raise cli.PartialFailure(
            f"{' and '.join(counts)}{others}",
            result,
        )
    return result


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
