"""The results of an evaluation, as the terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trials.objective import Objective
from trials.record import mean_ap

if TYPE_CHECKING:
    from detector.inference.latency import Latency


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


def print_model(result: dict, objective: Objective, latency: Latency, passes: int) -> None:
    """Print size, cost, latency, score and rules of a model.

    Args:
        result: the evaluation, as --json has it.
        passes: number of forward passes per image.
    """
    print(
        f"size     {result['params']:,} parameters\n"
        f"cost     {result['macs'] / 1e9:.4f} G MACs at 640×640\n"
        f"latency  {latency.median_ms:.1f} ms median, {latency.p10_ms:.1f}–"
        f"{latency.p90_ms:.1f} ms for the middle 80 % of {latency.repeats} runs (one image, "
        f"640×640; {latency.machine})"
    )
    print(
        f"score    {result['score']:.4f} = speed {result['speed_score']:.4f} (by "
        f"{objective.metric}: 1 at {objective.best:,.0f}, 0 at {objective.worst:,.0f}) "
        f"+ 2 × accuracy {result['accuracy_score']:.4f}"
    )
    if passes > 1:
        print(
            f"note: test-time augmentation uses {passes} forward passes per image; cost, latency "
            "and the speed in the score are those of one pass"
        )
    print("rules")
    verdicts = {True: "yes", False: "NO", None: "unknown"}
    for rule in result["rules"]:
        print(f"  {verdicts[rule['holds']]:<9}  {rule['rule']}: {rule['evidence']}")
