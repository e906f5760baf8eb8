"""Trials as a CSV table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from detector.base.files import write_text
from trials.record import LEVELS, TrialRecord


def trial_row(record: TrialRecord) -> dict[str, object]:
    """One trial as column → value, None where it has none. The sampler's choices come last, under
    their names in the search space, or as params.NAME where that is the name of a column."""
    ap = record.ap or {}
    row: dict[str, object] = {
        "number": record.number,
        "status": record.status.value,
        "source": record.source,
        "design": record.design,
        "score": record.score,
        "accuracy_score": record.accuracy_score,
        "speed_score": record.speed_score,
        **{f"ap_{level}": ap.get(level) for level in LEVELS},
        "params": record.cost.params,
        "macs": record.cost.macs,
        "latency_ms": record.cost.latency_ms,
        "epochs": len(record.epochs),
        "rung": record.rung,
        "seconds": round(record.seconds, 3),
        "reason": record.reason,
    }
    choices = {
        f"params.{key}" if key in row else key: value for key, value in record.params.items()
    }
    return row | choices


def trials_csv(records: Sequence[TrialRecord], path: Path) -> Path:
    """Write `trial_row` of each record to `path`; returns it."""
    rows = [trial_row(record) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
    return path
