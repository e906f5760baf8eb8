"""The results of an evaluation, as the terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from detector.base.output import print_wrapped
from trials.objective import Objective
from trials.record import mean_ap

if TYPE_CHECKING:
    from detector.inference.latency import Latency

INDENT = " " * 9
"""Before the second line of an entry."""


def print_ap(ap: Mapping[str, float], all_digits: bool = False) -> None:
    """Print easy, medium and hard AP and their mean."""
    levels = "  ".join(
        f"{level} {value!r}" if all_digits else f"{level} {value:.4f}"
        for level, value in ap.items()
    )
    print(f"AP       {levels}  mean {mean_ap(ap):.4f}")


def print_coco(numbers: Mapping[str, float | None]) -> None:
    """Print COCO's AP and AR; none if there is no face of that size."""
    shown = {name: "none" if value is None else f"{value:.4f}" for name, value in numbers.items()}
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
    print("COCO     " + "  ".join(f"{name} {shown[name]}" for name in names))


def print_metrics(numbers: Mapping[str, float]) -> None:
    """Print the metrics of plugins, if there are any."""
    if numbers:
        print("own      " + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))


def print_model(result: dict, objective: Objective, latency: Latency, passes: int) -> None:
    """Print size, cost, latency, score and rules of a model.

    Args:
        result: the evaluation, as --json has it.
        passes: number of forward passes per image.
    """
    height, width = result["latency_size"]
    print(
        f"size     {result['params']:,} parameters\n"
        f"cost     {result['macs'] / 1e9:.4f} G MACs at 640×640"
    )
    print_wrapped(
        f"latency  {latency.median_ms:.1f} ms median, {latency.p10_ms:.1f}–"
        f"{latency.p90_ms:.1f} ms for the middle 80 % of {latency.repeats} runs (one image, "
        f"{width}×{height}; {latency.machine})",
        INDENT,
    )
    speed = (
        f"speed {result['speed_score']:.4f} (by {objective.metric}: 1 at {objective.best:,.0f}, "
        f"0 at {objective.worst:,.0f})"
    )
    if objective.score is None:
        formula = f"{speed} + 2 × accuracy {result['accuracy_score']:.4f}"
    else:
        formula = f"{objective}; {speed}, accuracy {result['accuracy_score']:.4f}"
    print_wrapped(f"score    {result['score']:.4f} = {formula}", INDENT)
    for note in result["notes"]:
        print_wrapped(f"note: {note}")
    if passes > 1:
        print_wrapped(
            f"note: test-time augmentation uses {passes} forward passes per image; cost, latency "
            "and the speed in the score are those of one pass"
        )
    print("rules")
    verdicts = {True: "yes", False: "NO", None: "unknown"}
    for rule in result["rules"]:
        verdict = verdicts[rule["holds"]]
        print_wrapped(f"  {verdict:<9}  {rule['rule']}: {rule['evidence']}", " " * 13)


def print_beside(beside: Mapping, latency_ms: float) -> None:
    """Print what is known of the model that was timed in alternation with the evaluated one.

    Args:
        beside: as the evaluation has it in --json.
        latency_ms: of the evaluated model.
    """
    score = beside["score"]
    print(
        f"beside   {beside['model']}: {beside['latency_ms']:.1f} ms ({beside['machine']}; in "
        f"alternation), this one takes {latency_ms / beside['latency_ms']:.2f} × as long\n"
        f"         {beside['params']:,} parameters, {beside['macs'] / 1e9:.4f} G MACs, "
        f"speed {beside['speed_score']:.4f}"
        + ("" if score is None else f", score {score:.4f} on the same data")
    )
