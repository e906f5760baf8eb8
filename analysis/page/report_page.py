"""The page of a report, assembled from its sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.page.answer_section import answer_section
from analysis.page.front_sections import front_section, fronts_section
from analysis.page.page import Live, Page
from analysis.page.rounds_section import rounds_section
from analysis.page.search_sections import (
    curves_section,
    importances_section,
    progress_section,
    ranks_section,
    spending_section,
)
from analysis.page.trials_section import trials_section
from analysis.page.winner_section import winner_section
from analysis.records.studies import StudyData, same_score
from analysis.statistics.front import name_of
from analysis.statistics.pareto import hypervolume_of


def report_page(studies: Sequence[StudyData], folder: Path, live: Live | None = None) -> Page:
    """The whole page for one study, or for several overlaid.

    Args:
        folder: where the page will lie.
        live: of a study that is still running; then importances, which take long to compute, and
            the next command are left out.
    """
    names = ", ".join(study.name for study in studies)
    title = f"Search report: {names}" if len(studies) == 1 else f"Searches compared: {names}"
    page = Page(title, live)
    if len(studies) == 1:
        answer_section(page, studies[0], running=live is not None)
        front_section(page, studies[0])
    else:
        _overview(page, studies)
        fronts_section(page, studies)
    progress_section(page, studies)
    for study in studies:
        suffix = "" if len(studies) == 1 else f" · {study.name}"
        ranks_section(page, study, suffix)
        if live is None:
            importances_section(page, study, suffix)
        curves_section(page, study, suffix)
        spending_section(page, study, suffix)
        if study.rounds is not None:
            rounds_section(page, study, study.rounds, suffix)
        if study.best is not None:
            winner_section(page, study, study.best, suffix)
    if len(studies) == 1:
        trials_section(page, studies[0], folder)
    return page


def _overview(page: Page, studies: Sequence[StudyData]) -> None:
    rows = []
    for study in studies:
        rows.append(
            [
                study.name,
                study.manifest.space,
                study.manifest.sampler,
                study.manifest.data_name,
                f"{study.proxy_epochs} × {study.proxy_size} px",
                f"{len(study.completed):,} of {len(study.records):,}",
                f"{sum(r.epochs_spent for r in study.records):,}",
                f"{study.best_trial.score:.3f}",
                name_of(study.best_trial),
                "–" if study.baseline_score is None else f"{study.baseline_score:.3f}",
                len(study.front.front),
                f"{hypervolume_of(study.completed):.4f}",
            ]
        )
    page.table(
        [
            "study",
            "space",
            "sampler",
            "data",
            "proxies",
            "completed",
            "epochs",
            "best score",
            "trial",
            "baseline",
            "on front",
            "hypervolume",
        ],
        rows,
        left=(0, 1, 2, 3, 4),
    )
    for study in studies:
        page.text(
            f"{study.name}: {study.front.caption}. AP on the "
            f"{study.manifest.data.select_on} at the proxy's size; "
            f"score = {study.manifest.objective.described}.",
            note=True,
        )
    if len({study.manifest.data_fingerprint for study in studies}) > 1:
        page.text(
            "These studies were not run on the same images, so their numbers are not comparable."
        )
    elif len({(study.proxy_epochs, study.proxy_size) for study in studies}) > 1:
        page.text(
            "The proxies of these studies were not trained alike (epochs × crop), so their "
            "accuracies and scores are not comparable."
        )
    elif not same_score(studies):
        page.text(
            "These studies are ranked by different scores, so their scores are not comparable; "
            "python -m nas.rescore ranks one of them by the other's."
        )
