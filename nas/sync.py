"""python -m nas.sync: tell MLflow what it lacks of a study."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from detector.base.errors import UserError
from nas.terminal import cli
from nas.tracking.runs import RetrainRun, sync_command, track_evaluation, tracker
from trials.folders import study_or_newest

DESCRIPTION = """\
Make a study's view in MLflow whole again from the study itself: after an outage, or in another
store or server. What is there already stays as it is, so running it twice changes nothing.

  python -m nas.sync                                    (the study made last)
  python -m nas.sync --study retina-001
  python -m nas.sync --study retina-001 --tracking-uri http://127.0.0.1:5000

Trials, the study's course, its tables and pictures, retrains with their registered models, and
evaluations are told. It needs no images and trains nothing."""


def make_parser() -> ArgumentParser:
    return cli.parser("nas.sync", DESCRIPTION)


def run(args: Namespace) -> dict:
    """Sync as told on the command line; returns what --json writes."""
    from nas.study.storage import Study

    if args.tracking_uri == "none":
        raise UserError("--tracking-uri none: there is nothing to tell; name a store or server")
    name = study_or_newest(args.runs_dir, args.study)
    study = Study.open(args.runs_dir, name)
    with study.writing():
        whole = _study(args, study)
        retrains, evaluations = _models(args, study.folder) if whole else (0, 0)
    if not whole:
        raise cli.PartialFailure(
            f"{args.tracking_uri}: went away meanwhile; when it is back: "
            + sync_command(name, args.runs_dir, args.tracking_uri)
        )
    told = {
        "study": name,
        "tracking_uri": args.tracking_uri,
        "trials": len(study.records),
        "retrains": retrains,
        "evaluations": evaluations,
    }
    print(
        f"{args.tracking_uri} has study {name} whole: {told['trials']:,} trials, {retrains} "
        f"retrains, {evaluations} evaluations"
    )
    return told


def _study(args: Namespace, study) -> bool:
    """Whether MLflow has all of the trials and of the study's own numbers and pictures."""
    from nas.study.summary import write_files
    from nas.study.tracker_view import StudyView
    from trials.record import Status

    records = study.records
    again = sync_command(study.name, args.runs_dir, args.tracking_uri)
    told = tracker(args.tracking_uri, study.manifest, again, live=False)
    view = StudyView(study, told)
    view.tell_all()
    if any(r.status is Status.COMPLETED for r in records):
        view.files(write_files(study))
    return told.close(ended=bool(records) and all(r.status.ended for r in records))


def _models(args: Namespace, folder: Path) -> tuple[int, int]:
    """Retrains and evaluations of a study, told."""
    from analysis.records.studies import read_model
    from nas.models.model_folder import WEIGHTS

    uri = args.tracking_uri
    again = sync_command(folder.name, args.runs_dir, uri)
    retrains, evaluations = set(), 0
    for path in sorted(folder.glob("retrained/*")) + [folder / "best"]:
        model = read_model(path)
        if model is None:
            continue
        metrics = replace(model.metrics, folder=str(path))
        with RetrainRun(uri, metrics, again, live=False) as run:
            retrains.add(run.key)
            if not run.finished:
                for epoch in metrics.epochs:
                    run.epoch(epoch, metrics.finished)
                run.end(metrics)
        if model.evaluation is not None:
            track_evaluation(
                uri,
                args.runs_dir,
                model.evaluation,
                metrics.design,
                path / WEIGHTS,
                metrics.origin,
            )
            evaluations += 1
    return len(retrains), evaluations


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
