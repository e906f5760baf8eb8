"""python -m nas.detect: faces in images, folders and videos."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from detector.base.errors import UserError
from detector.config.recipe import Evaluation
from nas.terminal import cli, tta_flags

DESCRIPTION = """\
Find faces in images, folders of images and videos. Each file gets a JSON file of the same name in
the output folder: boxes [x1, y1, x2, y2], scores and landmarks in px of the upright picture.

  python -m nas.detect photos --output found              (by the model that was retrained last)
  python -m nas.detect a.jpg b.mp4 --output found --visualize --confidence 0.5
  python -m nas.detect photos --output found --checkpoint FILE --preset retinaface_mobile025
  python -m nas.detect photos --output found --model model.onnx

Files that cannot be read are listed at the end, with exit code 1; the rest is done."""

SETTINGS = Evaluation(score_threshold=0.5)


def make_parser() -> ArgumentParser:
    made = cli.parser("nas.detect", DESCRIPTION)
    made.add_argument(
        "inputs",
        metavar="IMAGE|FOLDER|VIDEO",
        nargs="+",
        type=Path,
        help="what to look at; folders with all that is below them",
    )
    made.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder of the results, made if missing; files of an earlier run are replaced",
    )
    made.add_argument(
        "--visualize", action="store_true", help="pictures and videos with the faces drawn, too"
    )
    model = made.add_argument_group("the model")
    cli.add_model_flags(model)
    model.add_argument(
        "--model", metavar="FILE", type=Path, help="a model that nas.export wrote, .onnx or .xml"
    )
    how = made.add_argument_group("how to look")
    how.add_argument(
        "--max-size",
        metavar="PX",
        type=cli.count,
        help="scale pictures down to this long side first: faster, and blind to "
        "small faces (default: as they are, up to 4096×4096 px in all)",
    )
    cli.add_detection_flags(how, SETTINGS)
    tta_flags.add_tta_flags(how)
    how.add_argument(
        "--batch-size",
        metavar="N",
        type=cli.count,
        default=1,
        help="pictures of one size taken at once (default: 1; more on a GPU)",
    )
    how.add_argument(
        "--workers",
        metavar="N",
        type=cli.count,
        default=2,
        help="threads that read and decode images ahead (default: 2)",
    )
    how.add_argument("--fp16", action="store_true", help="half precision, on a GPU")
    cli.add_device_flag(made)
    return made


def run(args: Namespace) -> dict:
    """Detect as told on the command line; returns what --json writes."""
    from detector.inference.detect_files import FileDetector
    from detector.inference.media import find_sources
    from detector.training.fit import choose_device
    from nas.models.model_folder import ModelChoice, chosen_model
    from nas.terminal.progress_bars import ImagesBar

    settings = tta_flags.tta_settings(args, cli.detection_settings(args, SETTINGS))
    sources = find_sources(args.inputs)
    device = choose_device(args.device)
    if args.fp16 and (str(device) == "cpu" or args.model is not None):
        raise UserError("--fp16: needs a GPU and weights of torch; leave it out")
    model = chosen_model(ModelChoice.of(args))
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
    faces, notes, unreadable = {}, [], []
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        with ImagesBar("files") as bar:
            for done, found in enumerate(detector.detect(sources, args.output, args.visualize), 1):
                if found.error:
                    unreadable.append(found.error)
                if found.frames:
                    faces[str(found.source.path)] = found.faces
                notes += found.notes
                bar.update(done, len(sources))
    except OSError as error:
        raise UserError(
            f"--output {args.output}: cannot be written ({error.strerror}); free some "
            "space or choose another folder"
        ) from error
    for note in notes:
        print(f"note: {note}")
    print(
        f"{args.output}: {sum(faces.values()):,} faces in {len(faces):,} of {len(sources):,} files"
    )
    result = {
        "model": model.title,
        "output": str(args.output),
        "files": len(sources),
        "faces": faces,
        "notes": notes,
        "unreadable": unreadable,
        "settings": json.loads(json.dumps(settings.to_dict())),
    }
    if unreadable:
        print("cannot be read:\n  " + "\n  ".join(unreadable))
        raise cli.PartialFailure(
            f"{len(unreadable)} of {len(sources)} files cannot be read; the rest is done", result
        )
    return result


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
