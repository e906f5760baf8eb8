"""The section with the table of all trials, which can be sorted and filtered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from analysis.page.page import Link, Page
from analysis.records.studies import StudyData
from trials.folders import trial_folder
from trials.names import describe
from trials.record import LEVELS, Status, TrialRecord

MAX_ROWS = 500
COLUMNS = (
    "trial",
    "status",
    "score",
    "accuracy",
    *LEVELS,
    "G MACs",
    "k params",
    "ms",
    "epochs",
    "design",
    "reason",
)


def trials_section(page: Page, study: StudyData, page_folder: Path) -> None:
    """
    Args:
        page_folder: where the page will lie, for the links to files of the study.
    """
    page.section("All trials")
    shown = _best_first(study.records)[:MAX_ROWS]
    left_out = len(study.records) - len(shown)
    page.text(
        "A click on a heading sorts by that column. The number of a trial leads to its log, and a "
        "click on a dot of a front above to its row here. Only completed trials were trained in "
        "full: the scores of the others are those of fewer epochs."
    )
    if left_out:
        page.text(
            f"The best {len(shown):,} of {len(study.records):,} trials; the other "
            f"{left_out:,} are in the file."
        )
    page.link("all trials with their choices, as trials.csv", "trials.csv")
    timed = any(r.cost.latency_ms is not None for r in shown)
    keep = [i for i, name in enumerate(COLUMNS) if name != "ms" or timed]
    rows = [_cells(study.folder, r, page_folder) for r in shown]
    columns = [COLUMNS[i] for i in keep]
    page.table(
        columns,
        [[row[i] for i in keep] for row in rows],
        left=[columns.index(name) for name in ("status", "design", "reason")],
        row_ids=[f"t{r.number}" for r in shown],
    )


def _best_first(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Completed trials, then others that were evaluated, each by score; then the rest."""

    def key(record: TrialRecord) -> tuple[int, float, int]:
        if record.score is None:
            return 2, 0.0, record.number
        return int(record.status is not Status.COMPLETED), -record.score, record.number

    return sorted(records, key=key)


def _cells(study_folder: Path, record: TrialRecord, page_folder: Path) -> list[object]:
    log = trial_folder(study_folder, record.number) / "log.txt"
    ap = record.ap or {}

    def number(value: float | None, digits: int = 3) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    return [
        Link(str(record.number), os.path.relpath(log, page_folder))
        if log.is_file()
        else record.number,
        record.status.value + (" (baseline)" if record.number == 0 else ""),
        number(record.score),
        number(record.accuracy_score),
        *(number(ap.get(level)) for level in LEVELS),
        number(record.cost.macs / 1e9),
        number(record.cost.params / 1e3, 1),
        number(record.cost.latency_ms, 1),
        len(record.epochs),
        describe(record.detector),
        record.reason or "",
    ]
