"""What a retrain prints: its plan, and its result."""

from __future__ import annotations

from pathlib import Path

from detector.base.output import print_wrapped
from detector.config.recipe import Recipe
from detector.weights.pretrained import Start
from nas.models.model_folder import WEIGHTS, last_retrained
from nas.retraining.candidate import Candidate
from nas.retraining.options import RetrainOptions
from trials.hints import command
from trials.record import finds_nothing
from trials.stored import Metrics


def print_plan(
    candidate: Candidate, recipe: Recipe, start: Start | None, data, train, options: RetrainOptions
) -> None:
    """Print what will be trained, in a few lines."""
    from trials.names import describe

    batch = f"batch {recipe.batch_size}"
    if options.workers > 1:
        batch += f" on {options.workers} workers"
    if recipe.accumulate > 1:
        batch += f" in {recipe.accumulate} parts"
    print_wrapped(f"retrain: {candidate.title} ({describe(candidate.config)})", "  ")
    print(
        f"  {recipe.epochs} epochs, {recipe.size} px, {batch}, lr "
        f"{recipe.optimizer.lr:g} ({recipe.optimizer.schedule}), "
        + (f"from {start.source}" if start else "from scratch")
    )
    if start:
        print(f"  {start}")
    print(
        f"  {len(train)} training images, "
        + (
            f"including the hold-out of {len(data.holdout)}"
            if options.with_holdout
            else f"without the hold-out of {len(data.holdout)}"
        )
    )
    if candidate.config.head.landmarks and not data.has_landmarks:
        print("note: these images have no landmarks, so the landmark loss is zero")
    if candidate.data is not None and candidate.data.select_on == "val":
        print(
            "note: the study compared its designs on the val images, so the AP on them is no "
            "longer an unbiased estimate"
        )


def print_result(candidate: Candidate, metrics: Metrics) -> None:
    """Print the result of a retrain."""
    from nas.terminal.format import duration

    if metrics.ap:
        levels = "  ".join(f"{level} {value:.4f}" for level, value in metrics.ap.items())
        mean = f"mean {metrics.accuracy_score:.4f}"
        print_wrapped(f"hold-out, original image size: AP {levels}  {mean}", "  ")
        if note := finds_nothing(metrics.ap):
            print_wrapped(f"note: {note}; train longer, or check the labels", "  ")
        if metrics.score is not None:
            print(
                f"score on the hold-out: {metrics.score:.4f} (speed "
                f"{metrics.speed_score:.4f}, {metrics.params:,} parameters, "
                f"{metrics.macs / 1e9:.4f} G MACs)"
            )
    else:
        print("the hold-out was part of the training images, so there is no AP on it")
    if best := metrics.best_epoch:
        print(
            f"best epoch: {best['epoch']} of {metrics.recipe.epochs}, mean AP "
            f"{best['accuracy_score']:.4f} at a long side of {best['size']} px"
        )
    print(f"saved to {candidate.folder} after {duration(metrics.seconds)} of training")


def print_next(options: RetrainOptions, folder: Path) -> None:
    """Print the command that usually follows.

    Args:
        folder: of the model; nas.evaluate takes the newest one by itself.
    """
    flags = {name: getattr(options, name) for name in ("runs_dir", "tracking_uri", "device")}
    if last_retrained(options.runs_dir) != folder:
        flags["checkpoint"] = folder / WEIGHTS
    print(f"next:\n  {command('nas.evaluate', flags)}")
