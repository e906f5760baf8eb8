"""python -m nas.sync: sends MLflow everything it lacks of a study."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError
from nas.terminal import cli
from nas.tracking.runs import RetrainRun, open_tracker, sync_command, track_evaluation
from trials.folders import study_or_newest

if TYPE_CHECKING:
    from nas.study.storage import Study

DESCRIPTION = """\
Complete what MLflow shows of a study, from the study itself: after an outage, or in another store
or server. Existing runs are kept and nothing is sent twice, so the command can be repeated safely.

  python -m nas.sync                                    (the newest study)
  python -m nas.sync --study retina-001
  python -m nas.sync --study retina-001 --tracking-uri http://127.0.0.1:5000

It sends the trials, the study's metrics over time, its tables and figures, retrains with their
registered models, and evaluations. It needs no images and trains nothing."""


def make_parser() -> ArgumentParser:
    return cli.parser("nas.sync", DESCRIPTION)


def run(args: Namespace) -> dict:
    """Run the command; returns what --json writes."""
    from nas.study.storage import Study

    if args.tracking_uri == "none":
        raise UserError("--tracking-uri none: there is nothing to send to; name a store or server")
    name = study_or_newest(args.runs_dir, args.study)
    study = Study.open(args.runs_dir, name)
    with study.writing():
        complete = _sync_study(args, study)
        retrains, evaluations, complete = (
            _sync_models(args, study.folder) if complete else (0, 0, False)
        )
    if not complete:
        raise cli.PartialFailure(
            f"{args.tracking_uri}: did not take everything; when it does, run: "
            + sync_command(name, args.runs_dir, args.tracking_uri)
        )
    result = {
        "study": name,
        "tracking_uri": args.tracking_uri,
        "trials": len(study.records),
        "retrains": retrains,
        "evaluations": evaluations,
    }
    print(
        f"{args.tracking_uri} has all of study {name}: {result['trials']:,} trials, {retrains} "
        f"retrains, {evaluations} evaluations"
    )
    return result


def _sync_study(args: Namespace, study: Study) -> bool:
    """Send the trials and the study's own metrics and figures; returns whether MLflow has all."""
    from nas.study.summary import write_files
    from nas.study.tracker_view import StudyView
    from trials.record import best_of

    records = study.records
    command = sync_command(study.name, args.runs_dir, args.tracking_uri)
    tracker = open_tracker(args.tracking_uri, study.manifest, command, live=False)
    view = StudyView(study, tracker, study.manifest.objective.metric)
    view.update_all()
    if best_of(records) is not None:
        view.log_files(write_files(study))
    return tracker.close(ended=bool(records) and all(r.status.ended for r in records))


def _sync_models(args: Namespace, folder: Path) -> tuple[int, int, bool]:
    """Send a study's retrains and evaluations; returns the number of each, and whether MLflow has
    all of them."""
    from analysis.records.studies import read_model
    from nas.models.model_folder import WEIGHTS

    uri = args.tracking_uri
    command = sync_command(folder.name, args.runs_dir, uri)
    retrains, evaluations, complete = set(), 0, True
    for path in sorted(folder.glob("retrained/*")) + [folder / "best"]:
        model = read_model(path)
        if model is None:
            continue
        metrics = replace(model.metrics, folder=str(path))
        with RetrainRun(uri, metrics, command, live=False) as run:
            retrains.add(run.key)
            if not run.finished:
                for epoch in metrics.epochs:
                    run.log_epoch(epoch, metrics.finished)
                complete &= run.finish(metrics)
        if model.evaluation is not None:
            complete &= track_evaluation(
                uri,
                args.runs_dir,
                model.evaluation,
                metrics.design,
                path / WEIGHTS,
                metrics.origin,
            )
            evaluations += 1
    return len(retrains), evaluations, complete


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
