"""python -m analysis.watch: the report of a running search, rewritten as the search goes on."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from analysis.page.page import Live, Page
from analysis.records.load import load_records
from analysis.records.studies import load_study
from analysis.report import page_folder, write_page
from detector.base import cli
from detector.base.errors import UserError, first_line
from detector.base.files import write_text
from trials.folders import add_runs_dir, find_study, study_or_newest
from trials.record import Status, TrialRecord, best_of
from trials.stored import ProgressFile, read_progress

DESCRIPTION = """\
Follow a search: rewrite its report whenever a trial has made progress, as a page that reloads
itself, and print its trials by state, the best score and the time left. Ends when the search has
ended, or with Ctrl-C. The study is only read.

  python -m analysis.watch                       (the newest study)
  python -m analysis.watch --study retina-001 --every 60"""
NICE = 10
"""Added to the priority value of this process, so that training goes first."""
FRONT = "front.csv"
"""A search of an older version wrote nothing else when it ended."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("analysis.watch", DESCRIPTION)
    shared = parser.add_argument_group("common to all commands")
    add_runs_dir(shared)
    shared.add_argument("--study", metavar="NAME", help="the study (default: the newest)")
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=cli.count,
        default=30,
        help="time between two looks at the study (default: 30)",
    )
    return parser


def run(args: Namespace) -> dict:
    """Follow the study to its end; returns what --json writes."""
    name = study_or_newest(args.runs_dir, args.study)
    folder = find_study(args.runs_dir, name)
    path = page_folder(folder, name) / "report.html"
    print(f"page: {path}\nCtrl-C stops watching; the search goes on", flush=True)
    os.nice(NICE)
    records: list[TrialRecord] = []
    seen = None
    ended = False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            progress = read_progress(folder)  # first: what has ended by then is in the records
            records = load_records(folder)
            ended = progress.ended if progress else has_ended(folder, records)
            state = [(r.number, r.status, len(r.epochs)) for r in records], ended
            if state != seen:
                status = status_of(records) + ("" if ended else left_text(progress))
                live = None if ended else Live(status, args.every)
                _write(args.runs_dir, name, path, live)
                print(f"{time.strftime('%H:%M:%S')}  {status}", flush=True)
                seen = state
            if ended:
                print("the search has ended")
                break
            time.sleep(args.every)
    best = best_of(records)
    return {
        "study": name,
        "page": str(path),
        "ended": ended,
        "trials": {status.value: 0 for status in Status} | _counts(records),
        "best": best and {"number": best.number, "score": best.score},
    }


def has_ended(folder: Path, records: Sequence[TrialRecord]) -> bool:
    """Whether no trial is left to train, and the search has written its results since: of a study
    without progress.json."""
    if not records or not all(r.status.ended for r in records):
        return False
    try:
        written = (folder / FRONT).stat().st_mtime
    except FileNotFoundError:
        return False
    return written >= max(r.ended or 0.0 for r in records)


def status_of(records: Sequence[TrialRecord]) -> str:
    """Trials by state and the best score, in one line."""
    best = best_of(records)
    return (
        (", ".join(f"{n:,} {status}" for status, n in _counts(records).items()) or "no trial yet")
        + f"; {sum(r.epochs_spent for r in records):,} epochs"
        + (f"; best score {best.score:.3f} (trial {best.number})" if best else "")
    )


def left_text(progress: ProgressFile | None) -> str:
    """ "; about 12 min left", by the search's own estimate."""
    if progress is None or progress.seconds_left is None:
        return ""
    minutes = progress.seconds_left / 60
    if minutes < 1:
        return "; less than a minute left"
    return (
        f"; about {minutes:.0f} min left" if minutes < 90 else f"; about {minutes / 60:.1f} h left"
    )


def _counts(records: Sequence[TrialRecord]) -> dict[str, int]:
    counts = Counter(r.status for r in records)
    return {status.value: counts[status] for status in Status if counts[status]}


def _write(runs_dir: Path, name: str, path: Path, live: Live | None) -> None:
    """Write the report, or a page that says why there is nothing to report yet."""
    try:
        study = load_study(runs_dir, name)
    except UserError as error:
        page = Page(f"Search report: {name}", live)
        page.text(f"Nothing to report{' yet' if live else ''}: {first_line(error)}")
        write_text(path, page.html())
    else:
        write_page([study], live)


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
