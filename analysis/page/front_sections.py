"""The sections about fronts: one study's, or those of several studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.figures.charts import front as front_charts
from analysis.page.page import Page
from analysis.records.studies import StudyData, measured_metrics
from analysis.statistics.front import COSTS, ap_of, name_of
from analysis.statistics.pareto import attained
from trials.names import describe
from trials.record import LEVELS, rank

ATTAINED_AT = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # G MACs


def front_section(page: Page, study: StudyData) -> None:
    page.section("Front")
    useless = sum(r.why_nothing_learned() is not None for r in study.front.dominated)
    page.text(
        "Each dot is a completed trial, and its area shows the number of parameters; hover over it "
        "for its numbers, click on it for its row in the table. Designs on the front are not "
        "dominated in accuracy and cost; dominated ones are faded"
        + (f"; {useless} that learned nothing are left out" if useless else "")
        + ". Published detectors appear after a click on their entry in the legend: they were "
        "trained in full on all of WIDER FACE train, and evaluated on its val images, so their AP "
        "is not comparable to that of a proxy trained for a few epochs."
    )
    records = {r.number: r for r in study.records}
    retrained = [(records[n], accuracy) for n, accuracy in study.retrained_accuracy.items()]
    for metric in measured_metrics([study]):
        page.heading(f"accuracy against {COSTS[metric][0].split(' (')[0]}")
        page.chart(
            front_charts.front_chart(
                study.records, metric=metric, quoted=True, retrained=retrained
            ),
            min_width=720,
        )
    _front_table(page, study)


def _front_table(page: Page, study: StudyData) -> None:
    deviation, source = study.score_deviation
    front = study.front.front
    rows = sorted(front, key=rank)[:20]
    page.heading(
        "The front's designs, best score first"
        + (f" (20 of {len(front)})" if len(front) > 20 else "")
    )
    timed = all(r.cost.latency_ms is not None for r in rows)
    page.table(
        [
            "trial",
            "design",
            "score",
            *LEVELS,
            "G MACs",
            "parameters",
            *(["ms"] if timed else []),
        ],
        [
            [
                name_of(r) + (" (baseline)" if r.number == 0 else ""),
                describe(r.detector),
                f"{r.score:.3f}",
                *(f"{ap_of(r)[level]:.3f}" for level in LEVELS),
                f"{r.cost.macs / 1e9:.3f}",
                f"{r.cost.params:,}",
                *([f"{r.cost.latency_ms:.1f}"] if timed else []),
            ]
            for r in rows
        ],
        left=(0, 1),
    )
    if timed:
        page.text(
            f"ms: latency of one 640×640 image on {rows[0].cost.machine}, measured in "
            "turns with the baseline.",
            note=True,
        )
    if deviation is not None:
        page.text(
            f"The uncertainty of a score is about ±{deviation:.3f} (one standard deviation, from "
            f"how accuracy varies {source})."
        )


def fronts_section(page: Page, studies: Sequence[StudyData]) -> None:
    page.section("Fronts")
    page.text(
        "What each study attained at a cost; its dominated trials are faded. A larger "
        "hypervolume (area under the front of accuracy × speed, in [0, 1]) means a better "
        "front overall."
    )
    for metric in measured_metrics(studies):
        page.heading(f"accuracy against {COSTS[metric][0].split(' (')[0]}")
        page.chart(
            front_charts.fronts_chart([(s.name, s.records) for s in studies], metric=metric),
            min_width=600,
        )
    page.heading("Highest accuracy attained within a number of MACs")
    rows = []
    for study in studies:
        points = np.array([(-r.cost.macs / 1e9, r.accuracy_score) for r in study.completed])
        rows.append(
            [study.name]
            + [
                f"{level:.3f}" if level > -np.inf else "–"
                for level in attained(points, -np.array(ATTAINED_AT))
            ]
        )
    page.table(["study", *(f"{value:g} G" for value in ATTAINED_AT)], rows)
