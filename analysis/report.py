"""python -m analysis.report: what one or several searches found, as a page and as pictures."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from analysis.correlation import score_deviation
from analysis.front import front_data
from analysis.pareto import hypervolume_of
from analysis.studies import StudyData, load_study, measured
from detector.base import cli
from detector.base.errors import UserError
from trials.folders import add_runs_dir

DESCRIPTION = """\
Write what a search found as one HTML page that needs no network, and as pictures: the front, the
course of the search, which choices matter, whether the proxy can be believed, where the time
went, and the retrained winner.

  python -m analysis.report                                   (the study made last)
  python -m analysis.report --study retina-001
  python -m analysis.report --study retina-001 --study random-001     (laid over each other)

The page is RUNS_DIR/STUDY/report.html, the pictures RUNS_DIR/STUDY/figures; of several studies
they lie with the first one, as compare-OTHERS.html and the folder compare-OTHERS."""


def make_parser() -> ArgumentParser:
    made = cli.parser("analysis.report", DESCRIPTION)
    shared = made.add_argument_group("common to all commands")
    add_runs_dir(shared)
    shared.add_argument(
        "--study",
        metavar="NAME",
        action="append",
        help="a study to report on; several are compared (default: the newest)",
    )
    made.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of resampling for intervals (default: 0)"
    )
    return made


def run(args: Namespace) -> dict:
    """Write the report; returns what --json writes."""
    names = args.study or [None]
    if len(set(names)) < len(names):
        raise UserError(f"--study {max(names, key=names.count)}: given twice; name each study once")
    started = time.time()
    studies = [load_study(args.runs_dir, name) for name in names]
    first = studies[0]
    page_path = write_page(studies)
    figures = page_path.with_suffix("") if len(studies) > 1 else first.folder / "figures"
    try:
        figures.mkdir(exist_ok=True)
        pictures = write_pictures(studies, figures)
    except OSError as error:
        raise UserError(
            f"{figures}: cannot be written ({error.strerror}); free some space, or "
            "choose another --runs-dir"
        ) from error
    for study in studies:
        told = summary(study)
        print(
            f"{study.name}: {told['caption']}\n  best score {told['best_score']:.3f} (trial "
            f"{told['best_trial']}), hypervolume {told['hypervolume']:.4f}, "
            f"{told['epochs']:,} epochs"
        )
        for sentence in told["correlations"]:
            print(f"  {sentence}")
    runs = f" --runs-dir {args.runs_dir}" if str(args.runs_dir) != "runs" else ""
    print(
        f"page: {page_path} ({page_path.stat().st_size / 1e6:.1f} MB, "
        f"{time.time() - started:.0f} s)\npictures: {figures} ({len(pictures)})\nnext:\n"
        f"  python -m analysis.choose --study {first.name}{runs}"
    )
    return {
        "page": str(page_path),
        "pictures": [str(path) for path in pictures],
        "studies": [summary(study) for study in studies],
    }


def write_page(studies: list[StudyData]) -> Path:
    """The report's page, in the folder of the first study; returns its path."""
    from analysis.sections import report_page

    first, others = studies[0], studies[1:]
    stem = "compare-" + "-".join(study.name for study in others) if others else "report"
    path = first.folder / f"{stem}.html"
    cli.write_text(path, report_page(studies).html())
    return path


def summary(study: StudyData) -> dict:
    """A study in a few numbers."""
    data = front_data(study.records, study.metric)
    deviation, source = score_deviation(study.comparisons)
    return {
        "study": study.name,
        "caption": data.caption,
        "best_score": data.best.score,
        "best_trial": data.best.number,
        "baseline_score": data.baseline and data.baseline.score,
        "front": [r.number for r in data.front],
        "hypervolume": hypervolume_of(study.completed),
        "epochs": sum(r.epochs_spent for r in study.records),
        "score_deviation": deviation if deviation == deviation else None,
        "score_deviation_from": source,
        "correlations": [one.sentence for one in study.comparisons],
    }


def write_pictures(studies: list[StudyData], folder: Path) -> list[Path]:
    """The PNGs of a report; returns their paths."""
    from analysis import figures
    from analysis.progress import spending
    from analysis.sections import baseline_score, curves_of

    first = studies[0]
    written = [
        figures.progress_png(
            [(s.name, s.progress, baseline_score(s)) for s in studies], folder / "progress.png"
        )
    ]
    if len(studies) > 1:
        return written + [
            figures.fronts_png(
                [(s.name, s.records) for s in studies],
                folder / f"fronts-{metric}.png",
                metric=metric,
            )
            for metric in measured(studies)
        ]
    for metric in measured(studies):
        written.append(
            figures.front_png(
                first.records,
                folder / f"front-{metric}.png",
                title=first.name,
                metric=metric,
                quoted=True,
            )
        )
    if first.importances:
        written.append(
            figures.importances_png(first.importances, folder / "importances.png", title=first.name)
        )
    if first.comparisons:
        written.append(figures.ranks_png(first.comparisons, folder / "ranks.png", title=first.name))
    shown, pale = curves_of(first)
    written.append(figures.curves_png(shown, pale, folder / "curves.png", title=first.name))
    written.append(
        figures.spending_png(spending(first.records), folder / "spending.png", title=first.name)
    )
    return written


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
