"""Prediction files of any program, scored by WIDER FACE's protocol."""

from __future__ import annotations

from detector.base.cli import PartialFailure
from nas.evaluation.ground_truth import (
    find_official_lists,
    load_ground_truth,
    open_val,
    print_uncounted,
    resolve_val_data,
)
from nas.evaluation.options import EvaluateOptions
from nas.evaluation.prediction_folder import box_notes, no_file_fits
from nas.evaluation.printing import print_ap, print_coco, print_metrics
from trials.record import mean_ap


def evaluate_predictions(options: EvaluateOptions) -> dict:
    """Score prediction files; returns what --json writes.

    Raises:
        UserError: a file or a list cannot be read, or no image has a file.
        PartialFailure: some images have no file; all others are scored.
    """
    from detector.metrics.coco import coco_ap
    from detector.metrics.custom import METRICS, custom_metrics
    from detector.metrics.wider import official_ground_truth, wider_ap
    from detector.metrics.wider_files import read_predictions

    assert options.predictions is not None
    path, line = resolve_val_data(options.data, None)
    lists, images = find_official_lists(options.ground_truth, path), None
    if lists is None or options.listed_only or options.coco or METRICS:
        print(line)
        images = open_val(path)
        truth, faces_text = load_ground_truth(lists, path, images)
    else:
        truth = official_ground_truth(lists)
        faces_text = f"all images of the official lists in {lists}"
    print_uncounted(truth, path)
    predictions, missing = read_predictions(options.predictions, truth.names)
    if len(missing) == len(truth):
        raise no_file_fits(options.predictions, truth.names)
    ap = wider_ap(predictions, truth)
    print(f"{options.predictions}: {len(truth):,} images ({faces_text})")
    for note in box_notes(predictions, truth, ap):
        print(f"note: {note}")
    print_ap(ap, all_digits=True)  # for comparison with other evaluators
    result: dict[str, object] = {
        "predictions": str(options.predictions),
        "metric": "coco" if options.coco else "wider",
        "ap": ap,
    }
    if options.coco and images is not None:
        coco = coco_ap(predictions, images.labels)
        print_coco(coco)
        result["coco"] = coco
    if images is not None:
        metrics = custom_metrics(predictions, images.labels)
        print_metrics(metrics)
        result["metrics"] = metrics
    result |= {
        "accuracy_score": mean_ap(ap),
        "images": len(truth),
        "missing": len(missing),
        "ground_truth": faces_text,
    }
    if missing:
        listed = "" if images is not None else "; --listed-only leaves out those not listed"
        raise PartialFailure(
            f"{len(missing):,} of {len(truth):,} images have no prediction file, the first is "
            f"{missing[0]}; they count as having no detections{listed}",
            result,
        )
    return result
