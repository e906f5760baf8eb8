"""The sections about a search: progress, budgets, choices, learning curves, epochs and time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.figures.charts import search as charts
from analysis.page.page import Page
from analysis.records.studies import StudyData, same_score
from analysis.statistics.correlation import MIN_PAIRS
from analysis.statistics.importance import FITS, MIN_TRIALS, choices, feature_table
from analysis.statistics.progress import reach, spending
from analysis.statistics.sample import random_sample
from trials.record import rank

MAX_LINES = 600
MAX_AXES = 9


def progress_section(page: Page, studies: Sequence[StudyData]) -> None:
    page.section("Progress")
    page.text(
        "Best score and hypervolume at each completed trial. Epochs are summed over all "
        "trials, so searches with different schedules can be compared."
    )
    page.chart(
        charts.progress_chart([(s.name, s.progress, s.baseline_score) for s in studies]),
        min_width=760,
    )
    if len(studies) > 1 and same_score(studies):
        goal = min(float(study.progress.best[-1]) for study in studies)
        for study in studies:
            spent = reach(study.progress.best, study.progress.epochs, goal)
            page.text(
                f"{study.name} reached score {goal:.3f}, which all of them reached, after "
                f"{spent:,.0f} epochs."
            )


def ranks_section(page: Page, study: StudyData, suffix: str) -> None:
    page.section(f"How well low budgets rank designs{suffix}")
    if not study.comparisons:
        page.text(
            "Nothing to compare: all trials were evaluated at one budget only, and none was "
            "retrained."
        )
    for comparison in study.comparisons:
        page.heading(f"{comparison.low_budget} → {comparison.high_budget}")
        page.text(comparison.sentence)
        spearman = comparison.spearman
        if len(comparison.x) >= MIN_PAIRS and not np.isnan(spearman.value):
            page.chart(charts.ranks_chart(comparison))
            page.text(
                f"Spearman's ρ {spearman.value:.2f}, 95 % interval "
                f"{spearman.low:.2f} to {spearman.high:.2f}. Only designs that were "
                "trained further have both values, and they were selected by the first one, "
                "which lowers the correlation compared with that over all designs.",
                note=True,
            )


def importances_section(page: Page, study: StudyData, suffix: str) -> None:
    page.section(f"Which choices matter{suffix}")
    importances = study.importances
    if importances is None:
        page.text(
            f"Unknown: fewer than {MIN_TRIALS} trials were evaluated at the same budget, or they "
            "do not differ."
        )
    elif not importances.reliable:
        page.text(
            "These trials do not tell: random forests that predict accuracy at a given cost from "
            f"the choices were fitted to {importances.reliability}, too little for importances to "
            "mean anything."
        )
    else:
        page.text(
            "Importance for accuracy at a given cost, that is, accuracy minus what the MACs alone "
            f"predict: {importances.reliability}. Bars: mean over {FITS} random forests; whiskers: "
            "their middle 80 %. A choice whose whisker reaches 0 may not matter at all."
        )
        page.chart(charts.importances_chart(importances), min_width=480)
    _parallel_coordinates(page, study)


def _parallel_coordinates(page: Page, study: StudyData) -> None:
    """Completed trials through their choices, the most important choices first."""
    shown = study.completed
    if len(shown) > MAX_LINES:
        half = MAX_LINES // 2
        best = sorted(shown, key=rank)[:half]
        shown = list({r.number: r for r in best + random_sample(shown, half)}.values())
    values, names, texts = feature_table(choices(shown, study.records))
    importances = study.importances
    ranked = (
        [one.feature for one in importances.features]
        if importances is not None and importances.reliable
        else names
    )
    columns = [names.index(name) for name in ranked if name in names][:MAX_AXES]
    if len(shown) < 2 or not columns:
        return
    page.heading("Completed trials by their choices")
    page.text(
        "One line per trial; light ones have a high score. Drag along an axis to select a range."
        + (
            f" ({len(shown)} of {len(study.completed):,} drawn, including the best "
            f"{MAX_LINES // 2}.)"
            if len(shown) < len(study.completed)
            else ""
        )
    )
    page.chart(
        charts.parallel_chart(
            shown, values[:, columns], [names[i] for i in columns], [texts[i] for i in columns]
        ),
        min_width=1100,
    )


def curves_section(page: Page, study: StudyData, suffix: str) -> None:
    page.section(f"Learning curves{suffix}")
    best, others = study.learning_curves()
    page.text(f"The best {len(best)} by score in colour, {len(others)} others faded.")
    page.chart(charts.curves_chart(best, others), min_width=760)


def spending_section(page: Page, study: StudyData, suffix: str) -> None:
    page.section(f"Where the epochs and the time went{suffix}")
    rows = spending(study.records)
    page.chart(charts.spending_chart(rows), min_width=760)
    total = sum(row.seconds for row in rows)
    page.text(
        f"{sum(row.epochs for row in rows):,} epochs, {total / 3600:.1f} hours of training "
        "and evaluation, summed over the workers."
    )
