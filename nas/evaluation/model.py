"""A model scored on the val images: AP, cost, latency, score, the competition's rules."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.cli import PartialFailure
from detector.base.errors import UserError
from detector.base.files import write_text
from detector.base.output import print_wrapped
from detector.config.recipe import Evaluation
from nas.evaluation.beside import EVALUATION, beside_of, known_score, measure
from nas.evaluation.ground_truth import (
    find_official_lists,
    load_ground_truth,
    open_val,
    print_uncounted,
    resolve_val_data,
)
from nas.evaluation.options import EvaluateOptions
from nas.evaluation.printing import (
    print_ap,
    print_beside,
    print_coco,
    print_metrics,
    print_model,
)
from nas.evaluation.subject import Subject, load_subject
from nas.study.summary import refresh_report
from nas.terminal import tta_flags
from nas.tracking.runs import track_evaluation
from trials.hints import command
from trials.objective import Objective
from trials.record import finds_nothing, mean_ap
from trials.stored import Origin, read_metrics
from trials.tracking.mlflow_store import check_store

if TYPE_CHECKING:
    import numpy as np
    import torch

    from detector.config.detector import Detector
    from detector.data.types import ImageSet
    from detector.inference.latency import Latency
    from detector.metrics.wider import GroundTruth


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model with its results on the val images."""

    result: dict
    """What --json writes."""
    predictions: Mapping[str, np.ndarray]
    """Image → float64 [n, 5] x, y, w, h (px), score, as in WIDER's prediction files."""
    images: ImageSet
    truth: GroundTruth


def evaluate_model(options: EvaluateOptions) -> dict:
    """Score a model, keep the result with it, and report it to MLflow; returns what --json writes.

    Raises:
        UserError: the model or the data cannot be used.
        PartialFailure: some images cannot be read; all others are scored.
    """
    model = load_subject(options.model)
    # report a wrong URI before the evaluation
    check_store(options.tracking_uri, model.origin.space if model.origin else None)
    scored = score(model, options)
    result = scored.result
    # a graph's result is not that of the weights beside it
    folder = model.model.folder if model.model and options.model.model is None else None
    if folder is not None and not os.access(folder, os.W_OK):
        print(f"note: not kept for reports, as {folder} is read-only for this user")
    elif folder is not None and options.settings == Evaluation():
        assert model.config is not None
        _save_with_model(folder, model.config, scored)
        for study in folder.parents[:2]:  # of STUDY/best and STUDY/retrained/NAME
            refresh_report(study)
    track_evaluation(
        options.tracking_uri,
        options.model.runs_dir,
        result,
        model.design,
        model.path,
        model.origin,
    )
    if model.model is not None and options.model.model is None:
        choice = options.model
        flags = {
            "runs_dir": choice.runs_dir,
            "study": choice.study,
            "checkpoint": choice.checkpoint,
            "preset": choice.preset,
        }
        print(f"next:\n  {command('nas.export', {'format': 'onnx', **flags})}")
    if unreadable := result["unreadable"]:
        from detector.data.types import why_unreadable

        print("cannot be read:\n  " + "\n  ".join(unreadable))
        raise PartialFailure(
            f"{len(unreadable)} of {len(scored.images)} images cannot be read, the first: "
            f"{why_unreadable(scored.images, unreadable[0])}; they count as having no detections",
            result,
        )
    return result


def score(model: Subject, options: EvaluateOptions) -> Scored:
    """Run a model on the val images, and print what comes out; keeps nothing but the prediction
    files that the options ask for.

    Raises:
        UserError: the data cannot be used, or none of its images can be read.
    """
    from detector.data.types import why_unreadable
    from detector.inference.predict import coco_rows, wider_rows
    from detector.metrics.coco import coco_ap
    from detector.metrics.custom import custom_metrics
    from detector.metrics.wider import wider_ap
    from detector.training.fit import choose_device

    device = choose_device(options.device)
    beside = beside_of(model, options.beside, options.model.runs_dir)
    print_wrapped(f"model: {model.title} ({model.description})", "  ")
    print(f"  {model.path}")
    origin = _origin_of(model) if options.data is None else None
    path, line = resolve_val_data(options.data, origin)
    print(line)
    images = open_val(path)
    lists = find_official_lists(options.ground_truth, path)
    truth, faces_text = load_ground_truth(lists, path, images)
    print_uncounted(truth, path)
    size_text = tta_flags.describe(options.settings)
    print_wrapped(f"  {len(images)} val images, {size_text}; {faces_text}", "  ")
    if options.settings_of is not None:
        print(f"evaluation settings of {options.settings_of}: {settings_text(options.settings)}")
    detections, unreadable = _detect(model, images, options.settings, device)
    if len(unreadable) == len(images):
        raise UserError(
            f"{path}: none of the {len(images)} val images can be read, the first: "
            f"{why_unreadable(images, unreadable[0])}; restore the images"
        )
    predictions = {name: wider_rows(faces) for name, faces in detections.items()}
    ap = wider_ap(predictions, truth)
    if options.output is not None:
        _write_predictions(options.output, predictions)
    latency, other_latency = measure(model, beside, device)
    objective = model.origin.objective if model.origin else Objective()
    result = {
        "model": model.title,
        "checkpoint": str(model.path),
        "describe": model.description,
        "metric": "coco" if options.coco else "wider",
        "evaluation": options.settings.to_dict(),
        "test_size": tta_flags.format_test_size(options.settings),
        "flip": options.settings.flip,
        "scales": list(options.settings.scales),
        "ap": ap,
        **_cost_and_score(model, latency, objective, ap),
        "finished": time.time(),
        "data": path,
        "images": len(images),
        "unreadable": unreadable,
        "ground_truth": faces_text,
    }
    print_ap(ap)
    if note := finds_nothing(ap):
        print(f"note: {note}")
    if options.coco:
        coco = result["coco"] = coco_ap(
            {name: coco_rows(faces) for name, faces in detections.items()}, images.labels
        )
        print_coco(coco)
    metrics = result["metrics"] = custom_metrics(predictions, images.labels)
    print_metrics(metrics)
    print_model(result, objective, latency, tta_flags.num_passes(options.settings))
    if beside is not None and other_latency is not None:
        shown = result["beside"] = _beside(beside, other_latency, objective, path)
        print_beside(shown, latency.median_ms)
    return Scored(result=result, predictions=predictions, images=images, truth=truth)


def _origin_of(model: Subject) -> Origin | None:
    """Where a model comes from; of an exported one, where the model that it lies beside does."""
    folder = model.model.folder if model.model else None
    if model.origin is not None or folder is None:
        return model.origin
    try:
        metrics = read_metrics(folder)
    except UserError:  # a file of this name of another program, say: then it is unknown
        return None
    return metrics.origin if metrics else None


def settings_text(settings: Evaluation) -> str:
    """Such as "long side at most 640 px, NMS 0.45 of the best 5000 with a score above 0.02, …"."""
    return (
        f"{tta_flags.describe(settings)}, {settings.interpolation.replace('_', ' or ')} resizing, "
        f"NMS {settings.nms_iou:g} of the best {settings.pre_nms:,} boxes with a score above "
        f"{settings.score_threshold:g}, at most {settings.keep:,} faces"
    )


def _detect(
    model: Subject, images: ImageSet, settings: Evaluation, device: torch.device
) -> tuple[dict, list[str]]:
    """Detections by image, and the images that cannot be read."""
    from detector.inference.predict import detect
    from nas.terminal.progress_bars import ImagesBar

    unreadable: list[str] = []
    with ImagesBar("val images") as bar:
        detections = detect(
            model.net,
            model.config,
            images,
            settings,
            device,
            progress=bar.update,
            unreadable=unreadable,
        )
    return detections, unreadable


def _write_predictions(folder: Path, predictions: dict) -> None:
    from detector.metrics.wider_files import write_predictions

    try:
        write_predictions(folder, predictions)
    except OSError as error:
        raise UserError(
            f"--output {folder}: cannot be written ({error.strerror}); give another folder"
        ) from error
    print(f"  prediction files: {folder}")


def _cost_and_score(
    model: Subject, latency: Latency, objective: Objective, ap: dict[str, float]
) -> dict[str, object]:
    """The entries of the result about cost, latency, score and rules."""
    cost = replace(model.cost, latency_ms=latency.median_ms, machine=latency.machine)
    return {
        "params": cost.params,
        "macs": cost.macs,
        "latency_ms": latency.median_ms,
        "latency_p10_ms": latency.p10_ms,
        "latency_p90_ms": latency.p90_ms,
        "machine": latency.machine,
        "accuracy_score": mean_ap(ap),
        "speed_score": objective.speed_score(cost),
        "score": objective.score_of(ap, cost),
        "rules": [rule.to_dict() for rule in model.rules(cost)],
        "latency_size": list(model.input_size),
        "notes": list(model.notes),
    }


def _beside(other: Subject, latency: Latency, objective: Objective, data: str) -> dict[str, object]:
    """The entry of the result about the model that was timed beside the evaluated one."""
    cost = replace(other.cost, latency_ms=latency.median_ms, machine=latency.machine)
    return {
        "model": other.title,
        "file": str(other.path),
        "params": cost.params,
        "macs": cost.macs,
        "latency_ms": latency.median_ms,
        "machine": latency.machine,
        "speed_score": objective.speed_score(cost),
        "score": known_score(other, data),
    }


def _save_with_model(folder: Path, config: Detector, scored: Scored) -> None:
    """Save the results that reports show: those at original size, without augmentation."""
    from nas.models.report_files import write_examples, write_network

    write_text(folder / EVALUATION, json.dumps(scored.result, indent=2) + "\n")
    write_network(folder, config)
    if scored.result["data"] == "synthetic":  # photographs must not be copied
        write_examples(folder, scored.images, dict(scored.predictions))
