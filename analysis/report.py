"""python -m analysis.report: the results of one or several searches, as a page and as pictures."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from analysis.page.page import Live
from analysis.records.studies import StudyData, load_study, measured_metrics
from analysis.records.tables import trials_csv
from analysis.statistics.pareto import hypervolume_of
from detector.base import cli
from detector.base.errors import UserError
from detector.base.files import write_text
from detector.base.output import print_wrapped
from trials.folders import add_runs_dir
from trials.hints import command

DESCRIPTION = """\
Write the results of a search as one HTML page that needs no network, and as pictures: the front,
the progress of the search, which choices matter, how well the proxy ranks designs, where the time
went, and the retrained winner.

  python -m analysis.report                                   (the newest study)
  python -m analysis.report --study retina-001
  python -m analysis.report --study retina-001 --study random-001     (overlaid)

The page is RUNS_DIR/STUDY/report.html, the pictures are in RUNS_DIR/STUDY/figures; for several
studies they are in the folder of the first one, as compare-OTHERS.html and compare-OTHERS/."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("analysis.report", DESCRIPTION)
    shared = parser.add_argument_group("common to all commands")
    add_runs_dir(shared)
    shared.add_argument(
        "--study",
        metavar="NAME",
        action="append",
        help="a study to report on; several are compared (default: the newest)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=cli.seed, default=0, help="seed of the bootstrap (default: 0)"
    )
    return parser


def run(args: Namespace) -> dict:
    """Write the report; returns what --json writes."""
    names = args.study or [None]
    if len(set(names)) < len(names):
        raise UserError(
            f"--study {max(names, key=names.count)} is given twice; name each study once"
        )
    started = time.time()
    studies = [load_study(args.runs_dir, name, args.seed) for name in names]
    first = studies[0]
    page_path = write_page(studies)
    figures = page_path.with_suffix("") if len(studies) > 1 else page_path.parent / "figures"
    try:
        figures.mkdir(exist_ok=True)
        pictures = write_pictures(studies, figures)
    except OSError as error:
        raise UserError(
            f"{figures}: cannot be written ({error.strerror}); free some space, or "
            "choose another --runs-dir"
        ) from error
    for study in studies:
        totals = summary(study)
        print(
            f"{study.name}: {totals['caption']}\n  best score {totals['best_score']:.3f} (trial "
            f"{totals['best_trial']}), hypervolume {totals['hypervolume']:.4f}, "
            f"{totals['epochs']:,} epochs"
        )
        for sentence in totals["correlations"]:
            print_wrapped(f"  {sentence}", "  ")
    print(
        f"page: {page_path} ({page_path.stat().st_size / 1e6:.1f} MB, "
        f"{time.time() - started:.0f} s)\npictures: {figures} ({len(pictures)})\nnext:\n"
        f"  {command('analysis.choose', {'study': first.name, 'runs_dir': args.runs_dir})}"
    )
    return {
        "page": str(page_path),
        "pictures": [str(path) for path in pictures],
        "studies": [summary(study) for study in studies],
    }


def write_page(studies: list[StudyData], live: Live | None = None) -> Path:
    """The report's page, in the folder of the first study, beside trials.csv if it is the only one;
    returns the page's path.

    Args:
        live: of a study that is still running.
    """
    from analysis.page.report_page import report_page

    first, others = studies[0], studies[1:]
    stem = "compare-" + "-".join(study.name for study in others) if others else "report"
    folder = page_folder(first.folder, first.name)
    path = folder / f"{stem}.html"
    if not others:
        trials_csv(first.records, folder / "trials.csv")
    write_text(path, report_page(studies, folder, live).html())
    return path


def page_folder(study_folder: Path, name: str) -> Path:
    """Where a study's report is written: its folder; report-STUDY in the current one if that folder
    is another user's."""
    if os.access(study_folder, os.W_OK):
        return study_folder
    folder = Path(f"report-{name}")
    folder.mkdir(exist_ok=True)
    return folder


def summary(study: StudyData) -> dict:
    """A study in a few numbers, as --json writes them."""
    deviation, source = study.score_deviation
    return {
        "study": study.name,
        "caption": study.front.caption,
        "best_score": study.best_trial.score,
        "best_trial": study.best_trial.number,
        "baseline_score": study.baseline_score,
        "front": [r.number for r in study.front.front],
        "hypervolume": hypervolume_of(study.completed),
        "epochs": sum(r.epochs_spent for r in study.records),
        "score_deviation": deviation,
        "score_deviation_from": source,
        "correlations": [one.sentence for one in study.comparisons],
    }


def write_pictures(studies: list[StudyData], folder: Path) -> list[Path]:
    """The PNGs of a report; returns their paths."""
    from analysis.figures.png import front as front_figures
    from analysis.figures.png import search as search_figures
    from analysis.statistics.progress import spending

    first = studies[0]
    written = [
        search_figures.progress_png(
            [(s.name, s.progress, s.baseline_score) for s in studies], folder / "progress.png"
        )
    ]
    if len(studies) > 1:
        return written + [
            front_figures.fronts_png(
                [(s.name, s.records) for s in studies],
                folder / f"fronts-{metric}.png",
                metric=metric,
            )
            for metric in measured_metrics(studies)
        ]
    for metric in measured_metrics(studies):
        written.append(
            front_figures.front_png(
                first.records,
                folder / f"front-{metric}.png",
                title=first.name,
                metric=metric,
                quoted=True,
            )
        )
    if first.importances is not None and first.importances.reliable:
        written.append(
            search_figures.importances_png(
                first.importances, folder / "importances.png", title=first.name
            )
        )
    if first.comparisons:
        written.append(
            search_figures.ranks_png(first.comparisons, folder / "ranks.png", title=first.name)
        )
    best, others = first.learning_curves()
    written.append(search_figures.curves_png(best, others, folder / "curves.png", title=first.name))
    written.append(
        search_figures.spending_png(
            spending(first.records), folder / "spending.png", title=first.name
        )
    )
    return written


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
