"""Prediction files of any program, scored by the WIDER FACE protocol."""

from __future__ import annotations

from nas.evaluation.ground_truth import (
    ground_truth_of,
    official_lists,
    open_val,
    resolve_val_data,
)
from nas.evaluation.options import EvaluateOptions
from nas.evaluation.printing import print_ap, print_coco
from trials.record import mean_ap


def evaluate_predictions(options: EvaluateOptions) -> dict:
    """Score prediction files; returns what --json writes.

    Raises:
        UserError: a file or a list cannot be read.
    """
    from detector.metrics.coco import coco_ap
    from detector.metrics.wider import official_ground_truth, wider_ap
    from detector.metrics.wider_files import read_predictions

    assert options.predictions is not None
    path, line = resolve_val_data(options.data, None)
    lists, images = official_lists(options.ground_truth, path), None
    if lists is None or options.listed_only or options.coco:
        print(line)
        images = open_val(path)
        truth, faces = ground_truth_of(lists, path, images)
    else:
        truth, faces = official_ground_truth(lists), f"all images of the official lists in {lists}"
    predictions, missing = read_predictions(options.predictions, truth.names)
    ap = wider_ap(predictions, truth)
    print(f"{options.predictions}: {len(truth):,} images ({faces})")
    if missing:
        print(
            f"note: {len(missing):,} of them have no prediction file, the first is {missing[0]}; "
            "they count as having no detections"
        )
    print_ap(ap, exact=True)  # to be compared with other evaluators
    result: dict[str, object] = {
        "predictions": str(options.predictions),
        "metric": "coco" if options.coco else "wider",
        "ap": ap,
    }
    if options.coco and images is not None:
        coco = coco_ap(predictions, images.labels)
        print_coco(coco)
        result["coco"] = coco
    return result | {
        "accuracy_score": mean_ap(ap),
        "images": len(truth),
        "missing": len(missing),
        "ground_truth": faces,
    }
