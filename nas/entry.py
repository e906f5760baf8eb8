"""python -m nas.entry: everything that a competition wants of a model, in one checked folder."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from detector.base.errors import UserError
from nas.models.model_folder import ModelChoice
from nas.terminal import cli, tta_flags
from trials.hints import given_flags

DESCRIPTION = """\
Pack everything that a competition wants of a model into one folder: the weights and their
configuration, a prediction file for each val image, AP, score and cost, thop's own count, each rule
with its evidence, a report on how the model was found and trained, and the SHA-256 of all files.

  python -m nas.entry                (the most recently retrained model)
  python -m nas.entry --study retina-001 --onnx --zip
  python -m nas.entry --checkpoint FILE --preset retinaface_mobile025
  python -m nas.entry --check runs/retina-001/entry   (an entry packed earlier)

The copy is what is evaluated: the packed weights are loaded, counted and run on the val images, as
by nas.evaluate and with its settings; then all files are read back, and the prediction files are
scored again. The folder appears when all of this has succeeded; otherwise nothing is written. If a
rule of the competition does not hold, or is unknown, the report says so and the exit code is 1.

--check finds out whether an entry is still what was packed: it compares the SHA-256 of all files,
counts the network, scores the prediction files again, which must give exactly the recorded AP, and
detects faces again in 8 images. What differs is listed, with exit code 1."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("nas.entry", DESCRIPTION)
    source = parser.add_argument_group("what to pack")
    cli.add_model_flags(source)
    target = parser.add_argument_group("the entry")
    target.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="the folder to write (default: RUNS_DIR/STUDY/entry for the model in "
        "RUNS_DIR/STUDY/best; for other weights a folder beside them)",
    )
    target.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an entry that is there already, after the new one has been checked",
    )
    target.add_argument("--zip", action="store_true", help="also write the entry as DIR.zip")
    target.add_argument(
        "--onnx",
        action="store_true",
        help="also pack the model as an ONNX graph that finds faces without this project, "
        "compared with torch",
    )
    target.add_argument(
        "--check",
        metavar="DIR",
        type=Path,
        help="check this entry, a folder or its archive, instead of packing one",
    )
    data = parser.add_argument_group("images and ground truth")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="folder of WIDER FACE, or synthetic (default: the data that the model was trained "
        "on; with --check those that the entry was scored on)",
    )
    cli.add_ground_truth_flag(data)
    tta = parser.add_argument_group("test size and test-time augmentation")
    tta_flags.add_size_flag(tta)
    tta_flags.add_tta_flags(tta, "those of --preset, otherwise 1")
    cli.add_device_flag(parser)
    return parser


WITH_CHECK = ("check", "data", "ground_truth", "device", "runs_dir", "tracking_uri", "seed")


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    if args.check is not None:
        others = [name for name in given_flags(make_parser(), args) if name not in WITH_CHECK]
        if others:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in others)
            raise UserError(f"{flags}: only for packing; leave out with --check")
        from nas.evaluation.check_entry import CheckOptions, check_entry

        return check_entry(
            CheckOptions(
                folder=args.check,
                data=args.data,
                ground_truth=args.ground_truth,
                device=args.device,
            )
        )
    choice = ModelChoice.of(args)  # flags are checked before a file is read
    from nas.evaluation.entry import EntryOptions, pack_entry
    from nas.evaluation.options import preset_settings

    settings, settings_of = preset_settings(args.preset)
    return pack_entry(
        EntryOptions(
            model=choice,
            output=args.output,
            overwrite=args.overwrite,
            zip=args.zip,
            onnx=args.onnx,
            data=args.data,
            ground_truth=args.ground_truth,
            settings=tta_flags.tta_settings(args, settings),
            settings_of=settings_of,
            device=args.device,
            tracking_uri=args.tracking_uri,
        )
    )


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
