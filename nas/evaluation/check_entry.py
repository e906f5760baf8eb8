"""An entry checked: its checksums, cost, rules, prediction files, and detections in some images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detector.base.cli import PartialFailure
from detector.base.errors import UserError, first_line
from detector.config.presets import load_design
from nas.evaluation.ground_truth import find_official_lists, load_ground_truth, open_val
from nas.evaluation.subject import of_model
from nas.models import entry_files
from nas.models.competition_rules import broken_rules
from nas.models.entry_record import Recorded
from nas.models.model_folder import CONFIG, Model
from trials.names import describe
from trials.objective import Objective
from trials.record import Cost, mean_ap

if TYPE_CHECKING:
    from detector.data.types import ImageSet
    from detector.metrics.wider import GroundTruth

IMAGES = 8
"""Images in which the packed model detects faces again."""
PX, SCORE, UNMATCHED = 2.0, 2e-3, 0.02
"""Two detections are the same within so many px and so much score: other machines add up in
another order, and boxes are rounded. Of all, this share may be found by only one of both."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The flags by which an entry is checked."""

    folder: Path
    """Of the entry, or its archive."""
    data: str | None = None
    """Folder of the images, or synthetic; None means the data that the entry was scored on."""
    ground_truth: Path | None = None
    device: str = "auto"


class _Steps:
    """Prints what was checked, and collects what differs."""

    def __init__(self) -> None:
        self.differences: list[str] = []

    def add(self, name: str, text: str, found: list[str]) -> None:
        self.differences += found
        if not found:
            print(f"  {name:<12}{text}", flush=True)
        for line in found:
            print(f"  {name:<12}DIFFERS: {line}", flush=True)


def check_entry(options: CheckOptions) -> dict:
    """Check an entry against what it says of itself; returns what --json writes.

    Raises:
        UserError: it is no entry, or the val images cannot be used.
        PartialFailure: something differs, or a rule does not hold.
    """
    with entry_files.unpacked(options.folder) as folder:
        return _check(replace(options, folder=folder), options.folder)


def _check(options: CheckOptions, given: Path) -> dict:
    """`check_entry` of a folder; `given` is what the user named."""
    folder, steps = options.folder, _Steps()
    changed = entry_files.changed_files(folder)
    print(f"entry: {given}")
    listed = len(entry_files.files_of(folder))
    steps.add("files", f"{listed:,} files have the SHA-256 in {entry_files.SUMS}", changed)
    try:
        recorded = Recorded.read(folder)
    except UserError as error:
        recorded = None
        steps.add("evaluation", "", [first_line(error)])
    if recorded is not None:
        model = _check_model(folder, recorded, steps)
        _check_images(options, recorded, model, steps)
    output = {"entry": str(given), "differences": steps.differences}
    if steps.differences:
        more = len(steps.differences) - 1
        raise PartialFailure(
            f"{given}: differs from what was packed: {steps.differences[0]}"
            + (f"; and {more:,} more" if more else ""),
            output,
        )
    assert recorded is not None
    if broken := broken_rules(recorded.rules):
        raise PartialFailure(
            f"{given}: as it was packed, but not all rules hold: {'; '.join(broken)}", output
        )
    return output


def rescored(folder: Path, images: ImageSet, truth: GroundTruth) -> list[str]:
    """What differs between the AP of the prediction files and the recorded one; as a line each.

    Raises:
        UserError: a file cannot be read.
    """
    from detector.metrics.wider import wider_ap
    from detector.metrics.wider_files import read_predictions

    recorded = Recorded.read(folder).ap.to_dict()
    names = [label.name for label in images.labels]
    predictions, missing = read_predictions(folder / entry_files.PREDICTIONS, names)
    if missing:
        return [
            f"{len(missing):,} of {len(names):,} val images have no prediction file, the first is "
            f"{missing[0]}"
        ]
    ap = wider_ap(predictions, truth)
    return [
        f"AP {level} of the prediction files is {ap[level]!r}, {entry_files.RESULT} has "
        f"{recorded[level]!r}"
        for level in ap
        if ap[level] != recorded[level]
    ]


def other_design(folder: Path, model: Model) -> list[str]:
    """A line if config.yaml of an entry has another design than its weights.

    Args:
        model: the packed one.
    """
    try:
        config = load_design(folder / CONFIG)[0]
    except UserError as error:
        return [first_line(error)]
    return [] if config == model.config else [f"{CONFIG}: its design is not that of the weights"]


def _check_model(folder: Path, recorded: Recorded, steps: _Steps) -> Model | None:
    """Cost, score and rules of the packed weights; None if they cannot be read."""
    from detector.network.counters import thop_profile

    try:
        model = entry_files.load_packed(folder, recorded.entry.by_config)
    except UserError as error:
        steps.add("model", "", [first_line(error)])
        return None
    steps.add("design", f"{describe(model.config)}, also in {CONFIG}", other_design(folder, model))
    cost, thop = Cost.of(model.config), thop_profile(model.net)
    counts = {
        "the configuration": (cost.params, cost.macs),
        "thop": (thop.all_params, thop.macs),
    }
    steps.add(
        "model",
        f"{cost.params:,} parameters, {cost.macs / 1e9:.4f} G MACs at 640×640, by thop as well",
        [
            f"{who} counts {params:,} parameters and {macs:,} MACs, {entry_files.RESULT} has "
            f"{recorded.params:,} and {recorded.macs:,}"
            for who, (params, macs) in counts.items()
            if (params, macs) != (recorded.params, recorded.macs)
        ],
    )
    objective = model.origin.objective if model.origin else Objective()
    measured = Cost(
        params=cost.params,
        macs=cost.macs,
        latency_ms=recorded.latency_ms,
        machine=recorded.machine,
    )
    ap = recorded.ap.to_dict()
    score = objective.score_of(ap, measured)
    steps.add(
        "score",
        f"{score:.4f} from AP (mean {mean_ap(ap):.4f}) and cost",
        [f"AP and cost give {score!r}, {entry_files.RESULT} has {recorded.score!r}"]
        if score != recorded.score
        else [],
    )
    rules = {rule.rule: rule.holds for rule in of_model(model).rules(cost)}
    recorded_rules = {rule.rule: rule.holds for rule in recorded.rules}
    held = sum(holds is True for holds in rules.values())
    steps.add(
        "rules",
        f"{held} of {len(rules)} hold, as recorded",
        [
            f"{rule}: is {rules.get(rule)} by the weights, {entry_files.RESULT} has "
            f"{recorded_rules.get(rule)}"
            for rule in rules | recorded_rules
            if rules.get(rule) != recorded_rules.get(rule)
        ],
    )
    return model


def _check_images(
    options: CheckOptions, recorded: Recorded, model: Model | None, steps: _Steps
) -> None:
    """Score the prediction files again, and detect again in some images."""
    path = options.data or recorded.data
    images = open_val(path)
    if len(images) != recorded.images:
        raise UserError(
            f"{path}: has {len(images):,} val images, the entry was scored on "
            f"{recorded.images:,}; give the same images with --data"
        )
    given = options.ground_truth
    if given is None and recorded.entry.lists is not None and options.data is None:
        given = Path(recorded.entry.lists)
    truth, _ = load_ground_truth(find_official_lists(given, path), path, images)
    readable = True
    try:
        found = rescored(options.folder, images, truth)
    except UserError as error:
        readable, found = False, [first_line(error)]
    ap = ", ".join(f"{level} {value:.4f}" for level, value in recorded.ap.to_dict().items())
    steps.add("predictions", f"{len(images):,} files score exactly as recorded: {ap}", found)
    if model is not None and readable:
        _detect_again(options, recorded, model, images, steps)


def _detect_again(
    options: CheckOptions, recorded: Recorded, model: Model, images: ImageSet, steps: _Steps
) -> None:
    from detector.data.splits import Subset
    from detector.inference.predict import detect, wider_rows
    from detector.metrics.wider_files import read_predictions
    from detector.training.fit import choose_device

    chosen = sorted({round(i) for i in np.linspace(0, len(images) - 1, IMAGES).tolist()})
    some = Subset(images, chosen, images.name)
    detections = detect(
        model.net,
        model.config,
        some,
        recorded.evaluation,
        choose_device(options.device),
        unreadable=[],
    )
    folder = options.folder / entry_files.PREDICTIONS
    packed, missing = read_predictions(folder, list(detections))
    faces = different = 0
    worst, most = "", 0
    for name in detections.keys() - set(missing):
        rows = wider_rows(detections[name])
        count = count_unmatched(packed[name], rows)
        faces += len(packed[name]) + len(rows)
        different += count
        worst, most = (name, count) if count > most else (worst, most)
    steps.add(
        "detections",
        f"{len(some)} images again: {(faces - different) // 2:,} faces as packed"
        + (f", {different} others (rounding at a threshold)" if different else ""),
        [
            f"detecting again in {len(some)} images gives {different:,} of {faces:,} faces that "
            f"only one of both has, most of them in {worst}"
        ]
        if different > UNMATCHED * faces
        else [],
    )


def count_unmatched(one: np.ndarray, other: np.ndarray) -> int:
    """The number of detections without an equal among the others.

    Args:
        one, other: float64 [n, 5] x, y, w, h (px), score.
    """
    if not len(one) or not len(other):
        return len(one) + len(other)
    boxes = np.abs(one[:, None, :4] - other[None, :, :4]).max(axis=2)
    scores = np.abs(one[:, None, 4] - other[None, :, 4])
    same = (boxes <= PX) & (scores <= SCORE)
    return int((~same.any(axis=1)).sum() + (~same.any(axis=0)).sum())
