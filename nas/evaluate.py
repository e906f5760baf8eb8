"""python -m nas.evaluate: AP on the val images, cost, score and the competition's rules."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import write_text
from detector.config.detector import arch_hash
from detector.config.recipe import DataChoice, Evaluation
from nas.terminal import cli, tta_flags
from nas.tracking.runs import track_evaluation
from trials.objective import Objective
from trials.record import Cost

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

GROUND_TRUTH = "ground_truth"  # folder of the official lists inside a data folder
LEVELS = ("easy", "medium", "hard")


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
    tta_flags.add_look_flags(how)
    cli.add_device_flag(made)
    return made


def run(args: Namespace) -> dict:
    """Evaluate as told on the command line; returns what --json writes."""
    others = [
        flag
        for flag, value in (
            ("--study", args.study),
            ("--checkpoint", args.checkpoint),
            ("--model", args.model),
        )
        if value is not None
    ]
    if args.predictions is not None and others:
        raise UserError(f"{others[0]} and --predictions: give one of them")
    if args.listed_only and args.predictions is None:
        raise UserError("--listed-only: goes with --predictions only; add that, or leave it out")
    if args.preset is not None and args.checkpoint is None:
        raise UserError("--preset: goes with --checkpoint only; add that, or leave it out")
    if args.predictions is not None and tta_flags.look_settings(args, Evaluation()) != Evaluation():
        raise UserError(
            "--test-size, --flip and --scales: go with a model; these are prediction files already"
        )
    if args.output is not None and args.predictions is not None:
        raise UserError("--output: goes with a model; these are prediction files already")
    if args.output is not None and args.output.exists() and any(args.output.iterdir()):
        raise UserError(f"--output {args.output}: is not empty; give a new folder")
    return _predictions(args) if args.predictions is not None else _model(args)


# -- prediction files -------------------------------------------------------------------------


def _predictions(args: Namespace) -> dict:
    from detector.metrics.wider import official_ground_truth, wider_ap
    from detector.metrics.wider_files import read_predictions

    path, line = _data_path(args, None)
    lists = _official(args, path)
    if lists is None or args.listed_only or args.metric == "coco":
        print(line)
        images = _val(path)
        truth, names = _truth(args, path, images)
    else:
        truth, names = official_ground_truth(lists), f"all images of the official lists in {lists}"
    found, missing = read_predictions(args.predictions, truth.names)
    ap = wider_ap(found, truth)
    print(f"{args.predictions}: {len(truth):,} images ({names})")
    if missing:
        print(
            f"note: {len(missing):,} of them have no prediction file, the first is {missing[0]}; "
            "they count as having no detections"
        )
    accuracy = sum(ap.values()) / len(ap)
    _print_ap(ap, accuracy, exact=True)  # to be compared with other evaluators
    coco = {"coco": _coco(found, images)} if args.metric == "coco" else {}
    return {
        "predictions": str(args.predictions),
        "metric": args.metric,
        "ap": ap,
        **coco,
        "accuracy_score": accuracy,
        "images": len(truth),
        "missing": len(missing),
        "ground_truth": names,
    }


def _coco(rows: dict, images) -> dict[str, float | None]:
    """COCO's numbers, printed."""
    from detector.metrics.coco import coco_ap

    found = coco_ap(rows, images.labels)
    shown = {name: "none" if value is None else f"{value:.4f}" for name, value in found.items()}
    print(
        "COCO     "
        + "  ".join(
            f"{name} {shown[name]}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
        )
    )
    return found


def _print_ap(ap: dict, accuracy: float, exact: bool = False) -> None:
    levels = "  ".join(
        f"{level} {ap[level]!r}" if exact else f"{level} {ap[level]:.4f}" for level in LEVELS
    )
    print(f"AP       {levels}  mean {accuracy:.4f}")


# -- models -----------------------------------------------------------------------------------


def _model(args: Namespace) -> dict:
    from detector.inference.predict import rows, wider_rows
    from detector.metrics.wider import wider_ap
    from detector.network.counters import thop_cost
    from detector.training.fit import choose_device
    from nas.models.competition_rules import check_rules
    from nas.models.model_folder import chosen_model
    from nas.models.report_files import write_examples, write_network
    from trials.names import describe

    if args.tracking_uri != "none":
        from trials.tracking.mlflow_store import client

        client(args.tracking_uri)  # a wrong one is better told now
    settings = tta_flags.look_settings(args, Evaluation())
    device = choose_device(args.device)
    model = chosen_model(args)
    print(f"model: {model.title} ({describe(model.config)})\n  {model.path}")
    path, line = _data_path(args, model)
    print(line)
    images = _val(path)
    truth, faces = _truth(args, path, images)
    print(f"  {len(images)} val images, {tta_flags.described(settings)}; {faces}")
    detections, unreadable = _detect(model, images, settings, device)
    found = {name: wider_rows(own) for name, own in detections.items()}
    ap = wider_ap(found, truth)
    if args.output is not None:
        _write(args.output, found)
    measured = _latency(model, device)
    cost = replace(Cost.of(model.config), latency_ms=measured.median_ms, machine=measured.machine)
    objective = model.origin.objective if model.origin else Objective()
    accuracy, speed = sum(ap.values()) / len(ap), objective.speed_score(cost)
    rules = check_rules(cost, thop_cost(model.config), model.recipe, model.origin)
    result = {
        "model": model.title,
        "checkpoint": str(model.path),
        "describe": describe(model.config),
        "metric": args.metric,
        "test_size": tta_flags.told_size(settings),
        "flip": settings.flip,
        "scales": list(settings.scales),
        "ap": ap,
        "params": cost.params,
        "macs": cost.macs,
        "latency_ms": measured.median_ms,
        "latency_p10_ms": measured.p10_ms,
        "latency_p90_ms": measured.p90_ms,
        "machine": measured.machine,
        "accuracy_score": accuracy,
        "speed_score": speed,
        "score": objective.score(accuracy, speed),
        "rules": [rule.to_dict() for rule in rules],
        "finished": time.time(),
        "data": path,
        "images": len(images),
        "unreadable": unreadable,
        "ground_truth": faces,
    }
    _print_ap(ap, accuracy)
    if args.metric == "coco":
        result["coco"] = _coco({name: rows(own) for name, own in detections.items()}, images)
    _print_model(result, objective, measured, tta_flags.looks(settings))
    if model.folder is not None and settings == Evaluation():  # what reports quote
        write_text(model.folder / "evaluation.json", json.dumps(result, indent=2) + "\n")
        write_network(model.folder, model.config)
        if path == "synthetic":  # photographs are not to be copied
            write_examples(model.folder, images, found)
    track_evaluation(
        args.tracking_uri,
        args.runs_dir,
        result,
        arch_hash(model.config),
        model.path,
        model.origin and model.origin.to_dict(),
    )
    if unreadable:
        print("cannot be read:\n  " + "\n  ".join(unreadable))
        raise cli.Partly(
            f"{len(unreadable)} of {len(images)} images cannot be read; they count as "
            "having no detections, the rest is done",
            result,
        )
    return result


def _detect(model, images, settings: Evaluation, device) -> tuple[dict, list[str]]:
    from detector.inference.predict import detect
    from nas.terminal.progress_bars import ImagesBar

    unreadable: list[str] = []
    with ImagesBar("val images") as bar:
        found = detect(
            model.net,
            model.config,
            images,
            settings,
            device,
            progress=bar.update,
            unreadable=unreadable,
        )
    return found, unreadable


def _write(folder: Path, found: dict) -> None:
    from detector.metrics.wider_files import write_predictions

    try:
        write_predictions(folder, found)
    except OSError as error:
        raise UserError(
            f"--output {folder}: cannot be written ({error.strerror}); give another folder"
        ) from error
    print(f"  prediction files: {folder}")


def _latency(model, device):
    """One image of 640×640, on one thread where it is a CPU."""
    from detector.export.runtime import Exported, load_exported
    from detector.inference.latency import latency

    if isinstance(model.net, Exported):
        measured = latency(load_exported(model.path, threads=1))
        return replace(measured, machine=f"{measured.machine}, {model.net.runtime}")
    return latency(model.net, device=device)


def _print_model(result: dict, objective: Objective, measured, looked: int) -> None:
    print(
        f"size     {result['params']:,} parameters\n"
        f"cost     {result['macs'] / 1e9:.4f} G MACs at 640×640\n"
        f"latency  {measured.median_ms:.1f} ms median, {measured.p10_ms:.1f}–"
        f"{measured.p90_ms:.1f} ms in the middle 80 % of {measured.repeats} runs (one image, "
        f"640×640; {measured.machine})"
    )
    print(
        f"score    {result['score']:.4f} = speed {result['speed_score']:.4f} (by "
        f"{objective.metric}: 1 at {objective.best:,.0f}, 0 at {objective.worst:,.0f}) "
        f"+ 2 × accuracy {result['accuracy_score']:.4f}"
    )
    if looked > 1:
        print(
            f"note: every image was looked at {looked} times; cost, latency and the score's "
            "speed are those of one look"
        )
    print("rules")
    answers = {True: "yes", False: "NO", None: "not known"}
    for rule in result["rules"]:
        print(f"  {answers[rule['holds']]:<9}  {rule['rule']}: {rule['evidence']}")


# -- images and faces -------------------------------------------------------------------------


def _data_path(args: Namespace, model) -> tuple[str, str]:
    """The data to score on, and a line that says which."""
    from detector.data.open import resolve_data

    if args.data is None and model is not None and model.origin is not None:
        path = model.origin.data.path
        return path, f"data: {path} (what the model was trained on)"
    return resolve_data(args.data)


def _val(path: str):
    """The val images of a data folder."""
    from detector.data.open import open_data

    data = open_data(DataChoice(path=path), parts=("val",))
    for warning in data.warnings:
        print(f"note: {warning}")
    return data.val


def _official(args: Namespace, path: str) -> Path | None:
    """Folder of the official lists, or none."""
    if args.ground_truth is not None:
        return args.ground_truth
    folder = Path(path) / GROUND_TRUTH
    return folder if path != "synthetic" and folder.is_dir() else None


def _truth(args: Namespace, path: str, images):
    """The faces of the images listed, and a line that says which of them count."""
    from detector.metrics.wider import height_ground_truth, official_ground_truth

    lists = _official(args, path)
    if lists is not None:
        truth = official_ground_truth(lists).only(label.name for label in images.labels)
        return truth, f"faces by the official lists in {lists}, those of these images"
    if path != "synthetic" and not any(len(label.boxes) for label in images.labels):
        raise UserError(
            f"{path}: its val annotation has no boxes and there is no folder "
            f"{GROUND_TRUTH}; add the official lists there, or give --ground-truth"
        )
    return height_ground_truth(images.labels), (
        "faces by their height (at least 51, 31, 11 px for easy, medium, hard), as there are no "
        "official lists"
    )


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
