"""The section about the retrained winner and its network."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.page.network_diagram import network_svg
from analysis.page.page import Page
from analysis.records.studies import Model, StudyData
from trials.hints import command
from trials.record import LEVELS


def winner_section(page: Page, study: StudyData, model: Model, suffix: str) -> None:
    metrics, evaluation = model.metrics, model.evaluation
    page.section(f"The winner{suffix}")
    page.text(
        f"{metrics.title}: {metrics.describe}; "
        f"{metrics.params:,} parameters, {metrics.macs / 1e9:.4f} G MACs "
        "at 640×640."
    )
    rows = []
    for name, source in (
        ("hold-out, after the retrain", metrics.to_dict()),
        ("val images", evaluation or {}),
    ):
        if source.get("ap"):
            rows.append(
                [
                    name,
                    *(f"{source['ap'][level]:.4f}" for level in LEVELS),
                    f"{source['accuracy_score']:.4f}",
                    f"{source['score']:.4f}" if source.get("score") is not None else "–",
                ]
            )
    if rows:
        page.table(["AP on", *LEVELS, "mean", "score"], rows)
    if evaluation is None:
        page.text("Not evaluated on the val images yet:")
        flags = {"study": study.name, "runs_dir": study.folder.parent}
        page.code(command("nas.evaluate", flags))
    else:
        page.heading("Rules of the competition")
        answers = {True: "yes", False: "NO", None: "unknown"}
        page.table(
            ["holds", "rule", "evidence"],
            [
                [answers[rule["holds"]], rule["rule"], rule["evidence"]]
                for rule in evaluation["rules"]
            ],
            left=(0, 1),
            wide=(2,),
        )
        page.text(
            f"Latency of one 640×640 image: {evaluation['latency_ms']:.1f} ms median "
            f"({evaluation['machine']})."
        )
    if model.network is not None:
        _network(page, model.network)
    if model.examples is not None:
        page.heading("Detections in built-in scenes")
        page.picture(
            model.examples, "boxes with a confidence of at least 0.5; the scenes are drawn"
        )


def _network(page: Page, network: dict) -> None:
    page.heading(
        f"The network, stage by stage, for a {network['input'][1]}×{network['input'][0]} image"
    )
    page.drawing(
        network_svg(network),
        "Each row is a pyramid level; each box lists layers and the size of their output "
        "(height × width × channels). Darker boxes have a larger share of the MACs. Dashed "
        "arrows connect the neck's levels.",
    )
    page.heading("Cost by step")
    macs = sum(step["macs"] for step in network["steps"]) or 1
    params = sum(step["params"] for step in network["steps"]) or 1
    page.table(
        [
            "step",
            "layers",
            "input",
            "output",
            "MACs",
            "share of MACs",
            "parameters",
            "share of parameters",
        ],
        [
            [
                step["name"],
                step["what"],
                _shape(step["in"]),
                _shape(step["out"]),
                f"{step['macs'] / 1e6:,.1f} M",
                step["macs"] / macs,
                f"{step['params']:,}",
                step["params"] / params,
            ]
            for step in network["steps"]
        ],
        left=(0, 1),
        bars=(5, 7),
    )
    page.heading("The most expensive layers")
    expensive = sorted(network["layers"], key=lambda row: -row[2])[:15]
    page.table(
        ["layer", "MACs", "share of MACs", "parameters"],
        [
            [name, f"{cost / 1e6:,.1f} M", cost / macs, f"{count:,}"]
            for name, count, cost in expensive
        ],
        bars=(2,),
    )


def _shape(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}×{shape[2]}"
